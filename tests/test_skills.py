"""Models of known skill come out in the order of their skill, under every protocol, from the command line."""

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from autointerp.config import load_run
from autointerp.harvesting import stored
from autointerp.protocols.catalog import make_presets
from autointerp.report.tables import read_outcomes
from sae.features import unit_sample
from sae.formats import load_dictionary
from sae.subject import load_subject
from tests.runs import MODELS, SITE, arguments, command, lead_to, values
from tests.sae.corpora import windows_of
from tests.sae.tiny import gpt2_folder
from tests.servers.loopback import serve
from tests.servers.scripted import SKILLS, Scripted, Skill, Truth

PROTOCOLS = ("monosemanticity-2023", "bills-2023", "detection", "fuzzing", "logits-2023")
CHANCE = {"detection": 0.5, "fuzzing": 0.5, "logits-2023": 0.5}
"""What a constant answer scores, where it is not 0."""
DENSITY = 0.02
"""Share of positions on which the features fire, about."""


@pytest.fixture(scope="module")
def wide(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject whose windows hold 64 tokens, and the autoencoder of `place`, made sparse."""
    folder = tmp_path_factory.mktemp("wide")
    subject = load_subject(str(gpt2_folder(folder / "subject", layers=1, context=72)))
    texts = [json.loads(line)["text"] for line in (place / "corpus.jsonl").read_text().splitlines()]
    windows = windows_of([subject.tokenizer(text)["input_ids"] for text in texts[:8]], context=72)
    dictionary, _ = load_dictionary(place / "sae")
    rows = subject.rows(subject.site(SITE), windows).cpu().numpy()
    shutil.copytree(place / "sae", folder / "sae")
    weights = load_file(folder / "sae" / "sae_weights.safetensors")
    weights["b_enc"] -= np.quantile(unit_sample(dictionary, rows), 1 - DENSITY, axis=0).astype(np.float32)
    save_file(weights, folder / "sae" / "sae_weights.safetensors")
    return folder


def flags(place: Path, wide: Path, out: Path, *more: str | Path) -> list[str | Path]:
    """A harvest for every protocol."""
    own = [word for name in PROTOCOLS for word in ("--protocol", name)]
    dictionary = ("--subject", wide / "subject", "--sae", wide / "sae")
    return arguments(place, out, *dictionary, "--context", "72", *own, *MODELS, *more)


def means(directory: Path, enough: int) -> dict[tuple[str, str], float]:
    """Mean headline by protocol and arm, where enough units have it."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in values(directory):
        if row["headline"] and row["value"] is not None:
            found[str(row["protocol"]), str(row["arm"])].append(float(row["value"]))  # pyright: ignore[reportArgumentType]
    return {key: float(np.mean(each)) for key, each in found.items() if len(each) >= enough}


def by_skill(
    harvested: Path, patch: pytest.MonkeyPatch, skills: Sequence[Skill], enough: int
) -> list[dict[tuple[str, str], float]]:
    """Means by skill, all from the same harvest."""
    folder, truth = harvested.parent, Truth.of(stored(load_run(harvested), harvested), make_presets(PROTOCOLS, 0))
    reached: list[dict[tuple[str, str], float]] = []
    for skill in skills:
        run = folder / skill
        shutil.copytree(harvested, run)
        with serve(answers=Scripted(skill, truth)) as server:
            lead_to(server.url, patch)
            assert command("resume", run, "--answers", folder / f"{skill}.sqlite") == 0
        reached.append(means(run, enough))
    return reached


@pytest.mark.usefixtures("no_figures")
def test_every_protocol_runs_over_one_harvest_and_knows_the_truth(
    place: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An oracle scores high and a constant answer nothing, from one harvest; explanations are paid for once."""
    lead_to("http://127.0.0.1:9", monkeypatch)
    harvested = tmp_path / "harvested"
    assert command("harvest", *flags(place, wide, harvested, "--features", "0:3", "--baseline", "none")) == 0
    oracle, constant = by_skill(harvested, monkeypatch, ("oracle", "constant"), enough=1)
    assert {protocol for protocol, _ in oracle} == set(PROTOCOLS)
    for key, value in oracle.items():
        assert value > 0.8, key
        assert constant[key] == pytest.approx(CHANCE.get(key[0], 0.0)), key
    run = tmp_path / "oracle"
    outcomes = read_outcomes(run).outcomes
    assert [each.protocol for each in outcomes[: len(PROTOCOLS)]] == list(PROTOCOLS)
    for name in PROTOCOLS:
        folder = run if name == PROTOCOLS[0] else run / name
        assert json.loads((folder / "summary.json").read_text())["protocol"] == name
    calls = json.loads((run / "manifest.json").read_text())["calls"]
    explained = sum(row["calls"] for row in calls if row["stage"] == "explain")
    assert explained == len({(each.unit, each.explanation) for each in outcomes}) == 2 * 3


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_scores_follow_skill_in_every_arm(
    place: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle, noisy, token table, constant; no token table knows which tokens come next, so there both are chance."""
    lead_to("http://127.0.0.1:9", monkeypatch)
    harvested = tmp_path / "harvested"
    assert command("harvest", *flags(place, wide, harvested, "--features", "0:8", "--baseline", "neurons")) == 0
    reached = by_skill(harvested, monkeypatch, SKILLS, enough=5)
    assert {protocol for protocol, _ in reached[0]} == set(PROTOCOLS)
    for key in reached[0]:
        oracle, noisy, token_only, constant = (each[key] for each in reached)
        assert oracle > noisy > token_only, (key, [each[key] for each in reached])
        assert token_only > constant or key[0] == "logits-2023", (key, [each[key] for each in reached])


def test_windows_that_hold_too_few_tokens_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A protocol is not run on shorter windows under its name."""
    assert command("run", *arguments(place, tmp_path / "run", "--protocol", "bills-2023")) == 2
    assert "Give --context" in capsys.readouterr().err
