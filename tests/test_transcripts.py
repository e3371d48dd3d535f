"""The committed transcripts are what their replay says."""

import json
from pathlib import Path

from benchmarks.transcript_floors import page
from benchmarks.transcripts import replay

MODEL = Path(__file__).parent.parent / "results" / "transcripts" / "claude"


def test_the_replay_gives_the_committed_numbers() -> None:
    """Every kept reply answers a prompt that is rendered the same today, and reads and scores as committed."""
    committed = json.loads((MODEL / "replay.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(replay(MODEL))) == committed
    readme = (MODEL.parent / "README.md").read_text(encoding="utf-8")
    for arm in ("features", "neurons"):
        assert f"{committed['spearman'][arm]['value']:.3f}" in readme


def test_floors_and_ceiling_are_what_the_transcripts_give() -> None:
    """The committed page is computed again, to the last digit."""
    assert page(MODEL) == (MODEL.parent / "floors.md").read_text(encoding="utf-8")
