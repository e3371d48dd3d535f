"""Models of known skill come out in the order of their skill, under every protocol, from the command line."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from autointerp.config import load_run
from autointerp.counted import Counted
from autointerp.harvesting import stored
from autointerp.protocols.catalog import make_presets
from autointerp.records.trial import Score
from autointerp.report.tables import read_outcomes
from sae.features import unit_sample
from sae.formats import load_dictionary
from sae.subject import load_subject
from tests.runs import MODELS, SITE, arguments, command, lead_to
from tests.sae.corpora import windows_of
from tests.sae.tiny import gpt2_folder
from tests.servers.loopback import serve
from tests.servers.scripted import SKILLS, Scripted, Skill, Truth

PROTOCOLS = ("monosemanticity-2023", "population", "bills-2023", "detection", "fuzzing", "logits-2023")
CONTROLS = ("features:shuffled", "features:empty", "features:generic")
CHANCE = {"detection": 0.5, "fuzzing": 0.5, "logits-2023": 0.5}
"""What a constant answer scores, where it is not 0."""
NEAR = 0.15
"""How far from `unigram` a token table in levels is."""
TOLD = 0.05
"""How far above chance `unigram` must be for a token table to beat a constant answer."""
ALIKE = 0.1
"""How far from the ceiling an oracle may stay that goes by the text alone, where a text occurs twice."""
DENSITY = 0.02
"""Share of positions on which the features fire, about."""

Key: TypeAlias = tuple[str, str]
"""Protocol and arm."""


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


def means(run: Path, enough: int) -> dict[Key, dict[str, float]]:
    """Mean of every measure by protocol and arm, where enough units have the headline, which is called ``score``."""
    found: dict[Key, dict[str, float]] = {}
    for protocol in PROTOCOLS:
        outcomes = [each for each in read_outcomes(run).outcomes if each.protocol == protocol]
        headline = next(each.result.headline for each in outcomes if isinstance(each.result, Score))
        table = Counted(outcomes, headline, 0)
        for arm in table.arms:
            values = {name.removesuffix(f"_{headline}"): table.values(arm, name) for name in table.main}
            values["score"] = values.pop(headline)
            if len(values["score"]) >= enough:
                found[protocol, arm] = {name: float(each.mean()) for name, each in values.items() if len(each)}
    return found


def bracketed(reached: Sequence[Mapping[str, float]], *, own: bool) -> None:
    """Between floor and ceiling lies whatever an explanation can add.

    The ceiling is what the true levels reach: the oracle reaches it and no skill exceeds it. The floor is the better of
    two answers that need no explanation: always the same, and the highest level at every anchor. So it is no lower
    than the constant answer, which may lie below it (under a correlation that scores 0, where the place of an excerpt's
    anchor tells more), and whoever has the right explanation and reads it as an oracle would is above it. A token table
    lies about where `unigram` does: it answers in levels, `unigram` in activations. Of explanations that are not a
    unit's own, nothing is asked but that no skill exceeds the ceiling.
    """
    best = reached[0]
    assert all(each["score"] <= best["quantised_oracle"] + 1e-6 for each in reached)
    assert best["quantised_oracle"] > best["floor"]
    assert {"unigram", "lift", "above_floor", "of_ceiling"} <= set(best)
    if own:
        assert best["quantised_oracle"] - best["score"] < ALIKE
        assert best["above_floor"] > 0
        assert reached[-1]["score"] <= best["floor"] + 1e-6


def by_skill(
    harvested: Path, patch: pytest.MonkeyPatch, skills: Sequence[Skill], enough: int
) -> list[dict[Key, dict[str, float]]]:
    """Means by skill, all from the same harvest."""
    folder, truth = harvested.parent, Truth.of(stored(load_run(harvested), harvested), make_presets(PROTOCOLS, 0))
    reached: list[dict[Key, dict[str, float]]] = []
    for skill in skills:
        run = folder / skill
        shutil.copytree(harvested, run)
        with serve(answers=Scripted(skill, truth)) as server:
            lead_to(server.url, patch)
            assert command("resume", run, "--answers", folder / f"{skill}.sqlite") == 0
        reached.append(means(run, enough))
    assert {protocol for protocol, _ in reached[0]} == set(PROTOCOLS)
    for key in reached[0]:
        bracketed([each[key] for each in reached], own=key[1] not in CONTROLS)
        for control in set(CONTROLS) & {arm for _, arm in reached[0]}:
            assert reached[0][key[0], control]["score"] < reached[0][key[0], "features"]["score"] - 0.2, (key, control)
    return reached


@pytest.mark.usefixtures("no_figures")
def test_every_protocol_runs_over_one_harvest_and_knows_the_truth(
    place: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An oracle scores high and a constant answer nothing, from one harvest; explanations are paid for once."""
    lead_to("http://127.0.0.1:9", monkeypatch)
    harvested = tmp_path / "harvested"
    more = ("--features", "0:3", "--baseline", "none", "--controls", "empty")
    assert command("harvest", *flags(place, wide, harvested, *more)) == 0
    oracle, constant = by_skill(harvested, monkeypatch, ("oracle", "constant"), enough=1)
    for key in oracle:
        assert key[1] in CONTROLS or oracle[key]["score"] > 0.8, key
        assert constant[key]["score"] == pytest.approx(CHANCE.get(key[0], 0.0)), key
    outcomes = read_outcomes(tmp_path / "oracle").outcomes
    assert [each.protocol for each in outcomes[: len(PROTOCOLS)]] == list(PROTOCOLS)
    calls = json.loads((tmp_path / "oracle" / "manifest.json").read_text())["calls"]
    explained = sum(row["calls"] for row in calls if row["stage"] == "explain")
    own = {(each.unit, each.explanation) for each in outcomes if each.unit.arm == "features"}
    assert explained == len(own) == 2 * 3


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_scores_follow_skill_in_every_arm(
    place: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle, noisy, token table, constant; where `unigram` is chance, as of tokens to come, so is the table."""
    lead_to("http://127.0.0.1:9", monkeypatch)
    harvested = tmp_path / "harvested"
    arms = ("--baseline", "neurons", "--baseline", "pca", "--baseline", "shuffled-subject", "--controls", "standard")
    assert command("harvest", *flags(place, wide, harvested, "--features", "0:8", *arms)) == 0
    reached = by_skill(harvested, monkeypatch, SKILLS, enough=5)
    for key in reached[0]:
        oracle, noisy, token_only, constant = scores = [each[key]["score"] for each in reached]
        if key[1] in CONTROLS:
            continue
        assert oracle > max(noisy, token_only), (key, scores)
        assert noisy > token_only or key[0] == "fuzzing", (key, scores)  # whose marks a table of tokens nearly tells
        told = reached[0][key]["unigram"] > CHANCE.get(key[0], 0.0) + TOLD  # else the table itself tells nothing
        assert token_only > constant or not told, (key, scores)
        assert token_only < reached[0][key]["unigram"] + NEAR, (key, scores)  # the same table, rounded to levels


def test_windows_that_hold_too_few_tokens_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A protocol is not run on shorter windows under its name."""
    assert command("run", *arguments(place, tmp_path / "run", "--protocol", "bills-2023")) == 2
    assert "Give --context" in capsys.readouterr().err
