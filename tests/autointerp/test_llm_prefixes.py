"""The provider's prompt cache: one call warms it, the others follow."""

import asyncio
from pathlib import Path

import pytest

from autointerp.llm.faults import Fault
from autointerp.llm.prefixes import PROOF, SHORTEST, Prefixes
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply, Request, Usage
from tests.autointerp.llm_parts import open_client, parrot, request, run

LONG = "word " * SHORTEST
"""Instructions that a provider would cache."""


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_call_of_a_prefix_goes_alone(tmp_path: Path, *, fails: bool) -> None:
    """The others wait until it has ended, well or not; those with other instructions do not wait."""
    sent: list[str] = []

    async def main() -> None:
        leave = asyncio.Event()

        async def reply(asked: Request) -> str:
            sent.append(asked.user)
            await leave.wait()
            if fails and asked.user == "0":
                raise Fault("bad_request", "no")
            return asked.user

        async with open_client(tmp_path, reply) as client:
            asked = [request(f"{i}", system=LONG) for i in range(4)]
            asked += [
                request("other", system=LONG + "!"),
                request("short 1", system="s"),
                request("short 2", system="s"),
            ]
            calls = [asyncio.create_task(client.answer(one)) for one in asked]
            while len(sent) < 4:
                await asyncio.sleep(0)
            assert sorted(sent) == ["0", "other", "short 1", "short 2"]
            leave.set()
            said = await asyncio.gather(*calls)
            assert [isinstance(one, Reply) for one in said] == [not fails, *[True] * 6]

    run(main)
    assert len(sent) == 7


def test_a_cancelled_first_call_lets_the_others_go(tmp_path: Path) -> None:
    """Nobody waits for a call that will never end."""

    async def main() -> None:
        sent = asyncio.Event()

        async def reply(asked: Request) -> str:
            if asked.user == "first":
                sent.set()
                await asyncio.Event().wait()
            return asked.user

        async with open_client(tmp_path, reply) as client:
            first = asyncio.create_task(client.answer(request("first", system=LONG)))
            await sent.wait()
            second = asyncio.create_task(client.answer(request("second", system=LONG)))
            await asyncio.sleep(0)
            first.cancel()
            assert isinstance(await second, Reply)

    run(main)


def count(cache_read: int, *, cost: int = 1, system: str = LONG) -> list[str]:
    """What is said after twice as many answers as should prove that the cache is used."""

    async def main() -> None:
        async with prefixes.turn(request(system=system)):
            pass
        for answer in range(2 * PROOF):
            read = cache_read if answer == 1 else 0
            prefixes.count(request(system=system), Usage(5000, read, 0, 1), cost)

    prefixes = Prefixes()
    run(main)
    return prefixes.warnings


def test_a_cache_that_is_not_used_is_said_once() -> None:
    """Only where one cached token would have been seen, instructions are long enough, and calls cost money."""
    [warning] = count(0)
    assert "scripted/parrot" in warning and "prompt cache" in warning
    assert count(4000) == count(0, cost=0) == count(0, system="short") == []


def test_progress_has_the_warning_and_the_cached_tokens(tmp_path: Path) -> None:
    """For the terminal to show."""

    class Caching(ScriptedProvider):
        def read(self, body: dict[str, object]) -> object:  # type: ignore[override]
            answer = super().read(body)
            object.__setattr__(answer, "usage", Usage(10, 4, 0, 5))
            return answer

    async def main() -> None:
        for folder, provider, warnings in (("a", ScriptedProvider(parrot), 1), ("b", Caching(parrot), 0)):
            async with open_client(tmp_path / folder, provider=provider) as client:
                for i in range(PROOF):
                    await client.answer(request(f"{i}", system=LONG))
                progress = client.progress()
                assert len(progress.warnings) == warnings
                assert progress.cached_input == (0 if warnings else 4 * PROOF)

    run(main)
