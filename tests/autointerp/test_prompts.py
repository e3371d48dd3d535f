"""Shipped prompts are whole, pinned and true to their own instructions."""

import json
import re
from pathlib import Path

import pytest

from autointerp import notation, prompts
from autointerp.explain.llm import LONGEST
from autointerp.prompts import load_prompt, prompt_digests
from sae.errors import UserError

PINNED = {
    "detection/v1": "b8ccf29fd16ddbd46db13fbfd7623851cdc27393413f2fd5ee1f1e53a11d19a9",
    "explain/v1": "a0a9c62f43c40ddf831e8d413b1278ab3829c10169e0753b9886bb73b34496ef",
    "fuzzing/v1": "771fd7c31d4b94fc7ebab5755e5d6a14ca6dcd9518143ab06a15aba1e691ff78",
    "logits/v1": "29b0021790cb27480be5ea0b7f6fa087ce14346795e93499a1366d626a5d8602",
    "simulate-10/v1": "8401113612f1b779de1bff286799b37ae3bbd3968d2b777419dbd05cc4c9d0b2",
    "simulate/v1": "5669de90ece5c1916fd9be8ccdac5c0775920a6e1978db1a664a530ac8196415",
    "slots/v1": "0eb98dcd7a30a058f4de89c15e1f82afccbce53694f55078b728e8beb1c192b5",
}


def test_shipped_versions_never_change() -> None:
    """A prompt's version is its text: whoever edits one must add a version instead."""
    assert prompt_digests() == PINNED


@pytest.mark.parametrize("name", ["explain", "simulate", "slots"])
def test_a_prompt_carries_the_digest_of_its_files(name: str) -> None:
    """What a run loads is what its manifest lists."""
    assert load_prompt(name, "v1").digest == prompt_digests()[f"{name}/v1"]


@pytest.mark.parametrize("file", ["demonstrations.json", "schema.json", "system.txt", "user.txt"])
def test_one_bit_of_any_file_changes_the_digest(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a prompt can change unnoticed."""
    folder = tmp_path / "explain" / "v1"
    folder.mkdir(parents=True)
    for each in (prompts.ROOT / "explain" / "v1").iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    monkeypatch.setattr(prompts, "ROOT", tmp_path)
    assert prompt_digests() == {"explain/v1": PINNED["explain/v1"]}
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(bytes(content))
    assert prompt_digests() != {"explain/v1": PINNED["explain/v1"]}


@pytest.mark.parametrize("wanted", [("explain", "v9"), ("explan", "v1"), ("explain", "../explain/v1")])
def test_an_unknown_prompt_is_refused_with_the_nearest(wanted: tuple[str, str]) -> None:
    """A misspelt name or version, or a path that is none, names what there is."""
    with pytest.raises(UserError, match="explain/v1"):
        load_prompt(*wanted)


def test_the_package_reaches_the_prompts_by_a_relative_link() -> None:
    """The link must hold wherever the repository is cloned, so that wheels can follow it."""
    link = Path(prompts.__file__).parent / "_prompts"
    assert not link.is_symlink() or link.readlink() == Path("../prompts")


@pytest.mark.parametrize("name", ["explain", "simulate", "simulate-10", "detection", "fuzzing", "logits"])
def test_schemas_are_strict_and_canonical(name: str) -> None:
    """Providers' strict modes need every object closed and every property required; keys need one spelling."""
    text = load_prompt(name, "v1").schema
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))

    def objects(node: object) -> list[dict[str, object]]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        own = [node] if isinstance(node, dict) and node.get("type") == "object" else []
        return own + [found for child in children for found in objects(child)]

    assert objects(json.loads(text))
    for found in objects(json.loads(text)):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])  # pyright: ignore[reportArgumentType]


def test_the_explain_prompt_states_the_limit_that_reading_enforces() -> None:
    """A model is told before its answer is refused."""
    assert f"More than {LONGEST} characters are rejected" in load_prompt("explain", "v1").system.template


def test_explain_demonstrations_keep_their_own_rules() -> None:
    """Eight, nine tokens each, at most 30 words, and the middle token's level lies in the interval that is claimed."""
    shown = json.loads(load_prompt("explain", "v1").demonstrations)
    assert len(shown) == 8
    for demonstration in shown:
        assert len(demonstration["explanation"].split()) <= 30
        for label, line, levels in demonstration["excerpts"]:
            assert len(notation.split(line)) == len(levels) == 9, line
            assert all(notation.display(notation.parse(token)) == token for token in notation.split(line))
            if interval := re.fullmatch(r"interval (\d+) of 12", label):
                number = int(interval[1])
                assert 10 * (number - 1) // 12 <= int(levels[4]) <= 10 * number // 12, line
            else:
                assert label in ("top", "random", "out of context")


def test_simulate_demonstrations_are_whole_and_mostly_silent() -> None:
    """Eight, one digit per token, with items that are all zeros: a simulator must not learn that every item fires."""
    shown = json.loads(load_prompt("simulate", "v1").demonstrations)
    assert len(shown) == 8
    answers = [levels for demonstration in shown for _, levels in demonstration["items"]]
    for demonstration in shown:
        for line, levels in demonstration["items"]:
            assert notation.read_levels(levels, len(notation.split(line)), 9) is not None, line
            assert all(notation.display(notation.parse(token)) == token for token in notation.split(line))
    assert sum(set(levels) == {"0"} for levels in answers) >= 5
    assert "".join(answers).count("0") > len("".join(answers)) / 2


def test_slots_demonstrations_are_whole_and_hiding_tells_nothing() -> None:
    """One digit per token, mostly zeros; levels hidden and shown are both silent and not; no schema."""
    prompt = load_prompt("slots", "v1")
    assert prompt.schema is None
    hidden, visible = "", ""
    for demonstration in json.loads(prompt.demonstrations):
        for line, levels in demonstration["items"]:
            assert notation.read_levels(levels, len(notation.split(line)), 9) is not None, line
            assert all(notation.display(notation.parse(token)) == token for token in notation.split(line))
        levels = "".join(levels for _, levels in demonstration["items"])
        assert 0 <= demonstration["hidden"] < len(levels)
        hidden, visible = hidden + levels[: demonstration["hidden"]], visible + levels[demonstration["hidden"] :]
    assert (hidden + visible).count("0") > len(hidden + visible) / 2
    assert {"0", "9"} <= set(hidden) & set(visible)


def test_all_prompts_demonstrate_different_units() -> None:
    """An explanation shown to the explainer must not be one that the simulator has seen."""
    explained, simulated, read = (
        {demonstration["explanation"] for demonstration in json.loads(load_prompt(name, "v1").demonstrations)}
        for name in ("explain", "simulate", "slots")
    )
    assert len(explained) == len(simulated) == len(read) == 8
    assert not explained & (simulated | read)
