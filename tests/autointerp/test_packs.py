"""Packs that do not fit, over real HTTP: asked in halves, nothing paid twice, nothing lost."""

import asyncio
import json
from pathlib import Path

import pytest

from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.prompts import load_prompt
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.llm import LlmSimulator, render_simulate
from tests.autointerp.llm_parts import attempts, no_sleep
from tests.runs import lead_to
from tests.servers.loopback import serve

EXPLANATION = Explanation("Cats: strong.", "someone/else")
ITEMS = tuple(Item((f" word{index}", " cat")) for index in range(20))
PROMPT = load_prompt("simulate", "v1")


@pytest.fixture(params=["anthropic/claude-haiku-5-5", "openai/gpt-6-luna"])
def model(request: pytest.FixtureRequest) -> str:
    """One model of each provider."""
    return str(request.param)


def simulate(model: str, place: Path) -> list[Prediction | Failure]:
    """What the simulator makes of `ITEMS` through the whole client."""

    async def main() -> list[Prediction | Failure]:
        async with Client.open(
            place / "answers.sqlite", run="run", cap_nano=10**9, providers=make_providers([model]), sleep=no_sleep
        ) as client:
            return list(await LlmSimulator(client, model, PROMPT).simulate(EXPLANATION, ITEMS))

    return asyncio.run(main())


def room_for(model: str, items: int) -> int:
    """Tokens of a context that just holds a call of `items` items, as the server counts them."""
    request = render_simulate(EXPLANATION, ITEMS[-items:], model, PROMPT)
    return len(json.dumps([request.system, request.user])) // 4 + request.max_tokens + 100


def test_a_prompt_above_the_context_is_asked_in_halves(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 and 10 items are refused, 5 fit: all are predicted, only four calls are billed, and the rest is released."""
    with serve(bill=tmp_path / "bill.jsonl", context=room_for(model, 5)) as server:
        lead_to(server.url, monkeypatch)
        said = simulate(model, tmp_path)
        assert all(isinstance(each, Prediction) for each in said)
        assert len(server.billed()) == 4
        ends = [(state, kind) for state, kind, _ in attempts(tmp_path)]
        assert ends.count(("settled", "answered")) == 4
        assert ends.count(("released", "too_long")) == len(ends) - 4 == 3
        assert simulate(model, tmp_path) == said
        assert len(server.billed()) == 4


def test_a_context_that_holds_no_item_fails_them_by_name(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item is a failure of its own, and nothing is paid."""
    with serve(bill=tmp_path / "bill.jsonl", context=100) as server:
        lead_to(server.url, monkeypatch)
        said = simulate(model, tmp_path)
        assert [each.kind for each in said if isinstance(each, Failure)] == ["too_long"] * 20
        assert server.billed() == []


def test_a_body_that_is_too_large_and_one_cut_off_are_asked_in_halves(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP 413 for the whole, then a truncated half: its two quarters are fresh draws, and all is read in the end."""
    with serve(bill=tmp_path / "bill.jsonl", faults=["413", "truncated"]) as server:
        lead_to(server.url, monkeypatch)
        assert all(isinstance(each, Prediction) for each in simulate(model, tmp_path))
        assert len(server.billed()) == 4
    kinds = sorted(kind for _, kind, _ in attempts(tmp_path))
    assert kinds == ["answered", "answered", "answered", "too_long", "truncated"]
