"""Batch mode: what goes into which batch, and what comes out of it."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from autointerp.llm import batches as batching
from autointerp.llm.batch_provider import BatchProvider, never_run
from autointerp.llm.batches import SUBMISSIONS
from autointerp.llm.faults import Fault
from autointerp.llm.progress import AtProvider
from autointerp.llm.provider import Body, Sent
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached
from tests.autointerp.batch_parts import (
    BOUND,
    FakeBatches,
    ask,
    echo,
    empty,
    journalled,
    open_batching,
    run,
    some_turns,
    texts,
)
from tests.autointerp.llm_parts import COST, MODEL, attempts, budget, ledger_row, parrot, request


def test_whatever_is_asked_meanwhile_goes_into_one_batch(tmp_path: Path) -> None:
    """One submission for all callers, answers to whom they belong, each paid once in a lifetime."""
    api = FakeBatches()
    assert isinstance(api, BatchProvider)

    async def main() -> None:
        for _ in range(2):
            async with open_batching(tmp_path, api) as client:
                assert texts(await ask(client, range(7))) == [f"unit{i}" for i in range(7)]
                assert client.progress().spent == 7 * COST

    run(main)
    assert api.sizes() == [7]
    assert journalled(tmp_path) == [("ingested", "batch0", 7)]
    row = ledger_row(tmp_path)
    assert (row.calls, row.cached, row.cost) == (7, 7, 7 * COST)


def test_the_next_stage_waits_for_all_results(tmp_path: Path) -> None:
    """Units that go on when their first answer is there are together again in the second batch."""
    api = FakeBatches()

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:

            async def unit(i: int) -> None:
                await client.answer(request(f"explain{i}"))
                await client.answer(request(f"simulate{i}", stage="simulate"))

            await asyncio.gather(*map(unit, range(300)))

    run(main)
    assert api.sizes() == [300, 300]


def test_batches_are_split_by_model_number_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model per batch, never more than the limits; a request above the limit of bytes goes alone."""
    monkeypatch.setattr(batching, "MOST_REQUESTS", 4)
    monkeypatch.setattr(batching, "MOST_BYTES", 1000)
    api, other = FakeBatches(), "scripted/other"
    models = {"providers": dict.fromkeys((MODEL, other), ScriptedProvider(parrot))}

    async def main() -> None:
        async with open_batching(tmp_path, api, **models, batch_providers=dict.fromkeys((MODEL, other), api)) as client:
            asks = [request(f"unit{i}", model=MODEL if i % 2 else other) for i in range(10)]
            asks.append(request("x" * 2000))
            assert all(isinstance(each, Reply) for each in await asyncio.gather(*map(client.answer, asks)))

    run(main)
    assert sorted(api.sizes()) == [1, 1, 1, 4, 4]
    assert ["x" * 2000] in [[body["user"] for body in bodies.values()] for _, bodies, _ in api.made.values()]


def test_the_money_is_reserved_before_anything_is_sent(tmp_path: Path) -> None:
    """At submission all attempts of the batch are open, durably, at their bounds."""

    class Looking(FakeBatches):
        async def submit(self, submission: str, bodies: object) -> str:
            seen.append((journalled(tmp_path), budget(tmp_path).reserved))
            return await super().submit(submission, bodies)  # type: ignore[arg-type]

    seen: list[object] = []

    async def main() -> None:
        async with open_batching(tmp_path, Looking()) as client:
            await ask(client, range(3))

    run(main)
    assert seen == [([("submitting", "", 3)], 3 * BOUND)]


def test_a_batch_is_cut_to_the_budget_and_the_rest_follows(tmp_path: Path) -> None:
    """The front goes first; what the answers leave over of their bounds pays for the rest."""
    api, cap = FakeBatches(), 3 * BOUND + 2 * COST

    async def main() -> None:
        async with open_batching(tmp_path, api, cap_nano=cap) as client:
            said = await ask(client, range(6))
            assert texts(said) == [f"unit{i}" for i in range(6)]

    run(main)
    assert api.sizes() == [3, 2, 1]
    assert api.asked() == [f"unit{i}" for i in range(6)]
    assert budget(tmp_path).committed == 6 * COST <= cap


def test_units_that_have_begun_end_before_others_begin(tmp_path: Path) -> None:
    """With money for three at a time, the second question of the first units precedes the first of the last."""
    api = FakeBatches()

    async def main() -> None:
        async with open_batching(tmp_path, api, cap_nano=3 * BOUND + 8 * COST) as client:

            async def unit(i: int) -> None:
                await client.answer(request(f"unit{i}"))
                await client.answer(request(f"more{i}"))

            await asyncio.gather(*map(unit, range(4)))

    run(main)
    assert api.asked()[:3] == ["unit0", "unit1", "unit2"]
    assert sorted(api.asked()[3:6]) == ["more0", "more1", "more2"]


def test_the_budget_stops_the_run(tmp_path: Path) -> None:
    """Where nothing is under way and the next request does not fit; a higher cap goes on and pays nothing twice."""
    api = FakeBatches()

    async def main() -> None:
        async with open_batching(tmp_path, api, cap_nano=BOUND + COST) as client:
            said = await ask(client, range(4))
            assert [type(each) for each in said] == [Reply, Reply, BudgetReached, BudgetReached]
            assert "next call could cost" in str(said[-1])
        async with open_batching(tmp_path, api, cap_nano=10 * BOUND) as client:
            assert len(texts(await ask(client, range(4)))) == 4

    run(main)
    assert api.asked() == ["unit0", "unit1", "unit2", "unit3"]


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_expired_is_sent_again_alone(tmp_path: Path, end: str) -> None:
    """It costs nothing, is counted as a retry, and the rest of its batch is not asked again."""
    unlucky = Counter({"unit1": 1, "unit3": 1})

    def said(body: Body) -> Sent | Fault:
        if unlucky[body["user"]]:
            unlucky[body["user"]] -= 1
            return never_run(end)  # type: ignore[arg-type]
        return echo(body)

    api = FakeBatches(said)

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(5)))) == 5
            assert client.progress().retries == {end: 2}

    run(main)
    assert api.sizes() == [5, 2]
    assert sorted(state for state, _, _ in attempts(tmp_path)) == ["released"] * 2 + ["settled"] * 5
    assert budget(tmp_path).committed == 5 * COST


def test_a_batch_that_is_too_long_is_sent_in_parts(tmp_path: Path) -> None:
    """Half as many requests at once, again and again; one that is too long by itself fails."""
    api = FakeBatches(before=[Fault("too_long", "HTTP 413")] * 4)

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            said = await ask(client, range(4))
            assert sum(isinstance(each, Reply) for each in said) == 3
            [failed] = [each for each in said if isinstance(each, Failure)]
            assert failed.kind == "too_long"

    run(main)
    assert set(api.sizes()) == {1}
    assert budget(tmp_path).committed == 3 * COST


def test_what_is_at_the_provider_is_told(tmp_path: Path) -> None:
    """Batches, their requests and how many of them are done, for as long as they run."""
    api = FakeBatches(looks=3)
    seen: list[AtProvider] = []

    async def main() -> None:
        async def look(seconds: float) -> None:
            if sent := client.progress().at_provider:
                seen.append(sent)
            await some_turns(seconds)

        async with open_batching(tmp_path, api, sleep=look) as client:
            assert len(texts(await ask(client, range(7)))) == 7
            assert client.progress().at_provider is None

    run(main)
    assert {(each.batches, each.total) for each in seen} == {(1, 7)}
    assert [each.done for each in seen] == [1, 2, 3]
    assert all(0 <= each.age < 60 for each in seen)


def test_what_fails_in_every_batch_becomes_a_failure(tmp_path: Path) -> None:
    """After `SUBMISSIONS` batches; what cannot succeed fails at once; nothing of it is charged."""

    def said(body: Body) -> Sent | Fault:
        match body["user"]:
            case "unit0":
                return never_run("expired")
            case "unit1":
                return Fault("bad_request", "no such field")
            case _:
                return echo(body)

    api = FakeBatches(said)

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            first, second, third = await ask(client, range(3))
            assert isinstance(first, Failure) and first.kind == "expired"
            assert second == Failure("explain", "bad_request", "no such field")
            assert isinstance(third, Reply)

    run(main)
    assert api.sizes() == [3] + [1] * (SUBMISSIONS - 1)
    assert budget(tmp_path).committed == COST


def test_a_request_that_is_forgotten_stays_charged(tmp_path: Path) -> None:
    """A batch that ends without a word on it may have billed it: charged at its bound, and asked again."""
    forget = ["unit0"]

    def said(body: Body) -> Sent | None:
        if body["user"] in forget:
            forget.remove(body["user"])
            return None
        return echo(body)

    async def main() -> None:
        async with open_batching(tmp_path, FakeBatches(said)) as client:
            assert len(texts(await ask(client, range(2)))) == 2

    run(main)
    assert attempts(tmp_path)[0] == ("unknown", "server_error", BOUND)
    assert budget(tmp_path).committed == BOUND + 2 * COST


def test_empty_and_refused_answers_are_paid_as_in_synchronous_mode(tmp_path: Path) -> None:
    """An empty answer's second draw goes into the next batch; a second session finds everything stored."""

    def said(body: Body) -> Sent:
        if body["user"] == "unit1":
            return Sent(echo(body).body | {"status": "refusal"}, "")
        return empty(body)

    api = FakeBatches(said)

    async def main() -> None:
        for _ in range(2):
            async with open_batching(tmp_path, api) as client:
                first, second = await ask(client, range(2))
                assert isinstance(first, Failure) and first.kind == "empty"
                assert isinstance(second, Failure) and second.kind == "refusal"

    run(main)
    assert api.sizes() == [2, 1]
    assert [state[:2] for state in sorted(attempts(tmp_path))] == [("settled", "empty")] * 2 + [("settled", "refusal")]


def test_a_bill_above_its_bound_stops_the_run(tmp_path: Path) -> None:
    """After the whole batch is settled: its answers are kept."""

    def greedy(body: Body) -> Sent:
        return Sent(echo(body).body | {"tokens": (10**6, 10**6)}, "")

    async def main() -> None:
        async with open_batching(tmp_path, FakeBatches(greedy)) as client:
            assert len(texts(await ask(client, range(3)))) == 3
            [said] = await ask(client, [7])
            assert isinstance(said, BudgetReached) and "no budget can hold" in str(said)

    run(main)
    assert budget(tmp_path).committed == 9 * 10**9
