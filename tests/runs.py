"""Runs of the commands in this process, on the tiny subject of the fixture `place`."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from autointerp.cli import main

SITE = "blocks.0.mlp.hook_post"
MODELS = ("--explainer", "anthropic/claude-sonnet-5-5", "--simulator", "openai/gpt-6-luna")


def command(*words: str | Path) -> int:
    """Exit code of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def arguments(place: Path, out: Path, *more: str | Path) -> list[str | Path]:
    """Flags of a run over the tiny subject; what is in `more` is not given twice."""
    own: dict[str, str | Path] = {
        "--subject": place / "subject",
        "--sae": place / "sae",
        "--site": SITE,
        "--context": "32",
        "--corpus": place / "corpus.jsonl",
        "--tokens": "40k",
    }
    return [word for flag, value in own.items() if flag not in more for word in (flag, value)] + ["--out", out, *more]


def values(directory: Path) -> list[dict[str, object]]:
    """The rows of a run's scores."""
    return pq.read_table(directory / "scores.parquet").to_pylist()


def lead_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both SDKs call `url`, in this process and in those that it starts."""
    for name, value in addresses(url).items():
        monkeypatch.setenv(name, value)


def addresses(url: str) -> dict[str, str]:
    """The environment that leads both SDKs to `url`."""
    keys = {"ANTHROPIC_API_KEY": "sk-ant-secret-1", "OPENAI_API_KEY": "sk-secret-2"}
    return {"ANTHROPIC_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1", **keys}


def bill(path: Path) -> int:
    """Calls that the server billed."""
    return len(path.read_text().splitlines()) if path.exists() else 0
