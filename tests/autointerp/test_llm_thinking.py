"""Models that refuse to be told not to think: asked in another way, over real HTTP, with room for it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autointerp.llm import openai
from autointerp.llm.batches import QUIET
from autointerp.llm.catalog import make_batch_providers, make_providers
from autointerp.llm.client import Client
from autointerp.llm.prices import Prices
from autointerp.llm.thinking import ROOM
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from tests.autointerp.llm_parts import attempts, budget, no_sleep
from tests.runs import lead_to
from tests.servers.loopback import Server, default_answer, serve

CLAUDE, LUNA = "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"
EXPECTED = {
    (CLAUDE, ("disabled",)): ["disabled"],
    (CLAUDE, ("between_tools",)): ["between_tools"],
    (CLAUDE, ("low",)): ["low"],
    (CLAUDE, ()): [""],
    (LUNA, ("none",)): ["none"],
    (LUNA, ("low",)): ["low"],
    (LUNA, ()): [""],
}
"""By model and what it allows: the way in which calls that were answered asked for no thinking."""


def way(body: Mapping[str, Any]) -> str:
    """How `body` asks for less thinking."""
    effort = body.get("reasoning_effort") or body.get("output_config", {}).get("effort")
    return body.get("thinking", {}).get("type") or effort or ""


class Asked(list[dict[str, Any]]):
    """The bodies that were answered."""

    def __call__(self, body: dict[str, Any]) -> str:
        """Answer and remember."""
        self.append(body)
        return default_answer(body)


def unit(model: str, name: str) -> Request:
    """A request that fits in few tokens."""
    return Request(model=model, system="", user=name, schema=None, max_tokens=50, stage="explain", arm="features")


async def ask(server: Server, place: Path, model: str, names: list[str], **more: Any) -> tuple[list[object], list[str]]:
    """What the calls come to, and what the client has to say about them."""
    with pytest.MonkeyPatch.context() as patch:
        lead_to(server.url, patch)
        patch.setattr(openai, "DEFAULT_URL", f"{server.url}/v1")  # who sends the effort only to OpenAI
        if more.pop("batch", False):
            more["batch_providers"] = make_batch_providers([model])
            more["sleep"] = lambda seconds: asyncio.sleep(seconds / QUIET / 100)
        settings = {"run": "run", "cap_nano": 10**9, "sleep": no_sleep} | more
        async with Client.open(place / "answers.sqlite", providers=make_providers([model]), **settings) as client:
            said = await asyncio.gather(*(client.answer(unit(model, name)) for name in names))
        return list(said), list(client.progress().warnings)


@pytest.mark.parametrize("batch", [False, True], ids=["now", "batch"])
@pytest.mark.parametrize(("model", "allowed"), EXPECTED)
def test_a_model_that_refuses_is_asked_in_the_next_way(
    model: str, allowed: tuple[str, ...], *, batch: bool, tmp_path: Path
) -> None:
    """All calls are answered, none twice; the bill stays below what was reserved; it is said once where it costs."""
    asked = Asked()
    with serve(bill=tmp_path / "bill.jsonl", answers=asked, thinking=allowed) as server:
        said, warnings = asyncio.run(ask(server, tmp_path, model, ["a", "b", "c"], batch=batch))
        assert all(isinstance(each, Reply) for each in said), said
        assert {way(body) for body in asked} == set(EXPECTED[model, allowed])
        thinks = EXPECTED[model, allowed][0] in ("low", "")
        limits = {body.get("max_tokens") or body.get("max_completion_tokens") for body in asked}
        assert limits == {50 + ROOM * thinks}
        assert len(warnings) == thinks
        assert len(server.billed()) == 3
        assert sum(line["nano"] for line in server.billed()) == budget(tmp_path).committed
        refused = [kind for state, kind, _ in attempts(tmp_path) if state == "released"]
        assert set(refused) <= {"bad_request"}

        # What was learnt is kept with the answers: another session is refused nothing and pays nothing twice.
        before = server.calls
        again, warnings = asyncio.run(ask(server, tmp_path, model, ["a", "d"], batch=batch))
        assert all(isinstance(each, Reply) for each in again)
        assert (len(server.billed()), warnings) == (4, [])
        assert batch or server.calls == before + 1


def test_a_budget_without_room_to_think_is_not_exceeded(tmp_path: Path) -> None:
    """The room is reserved like the rest: where it does not fit, nothing is sent, however little would be used."""
    bound = Prices().bound(unit(CLAUDE, "a"))
    with serve(bill=tmp_path / "bill.jsonl", thinking=("low",)) as server:
        with pytest.raises(Exception, match="The budget is reached"):
            asyncio.run(ask(server, tmp_path, CLAUDE, ["a"], cap_nano=2 * bound))
        assert server.billed() == []
        assert budget(tmp_path).committed == 0


def test_another_bad_request_stays_one(tmp_path: Path) -> None:
    """A refusal that does not name thinking, or that no other way of asking could lift, fails its call only."""
    with serve(faults=["400"]) as server:
        said, _ = asyncio.run(ask(server, tmp_path, CLAUDE, ["a"]))
        assert isinstance(said[0], Failure) and said[0].kind == "bad_request"
        assert server.calls == 1
