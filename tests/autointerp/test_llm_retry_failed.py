"""What failed is asked again where that is wanted, and nothing that was paid for is lost."""

from pathlib import Path

import pytest

from autointerp.llm.faults import Fault
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.seams import Refused
from tests.autointerp.llm_parts import attempts, open_client, parrot, request, run


def refusing(status: str = "refusal") -> ScriptedProvider:
    """Says no to everything."""
    return ScriptedProvider(parrot, status=status)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["refusal", "truncated"])
def test_a_stored_failure_is_asked_again_only_where_that_is_wanted(status: str, tmp_path: Path) -> None:
    """A plain session repeats the stored failure for nothing; `retry_failed` draws anew, and that answer stays."""

    async def main() -> None:
        async with open_client(tmp_path, provider=refusing(status)) as client:
            first = await client.answer(request())
        async with open_client(tmp_path) as client:
            again = await client.answer(request())
        assert first == again
        assert isinstance(again, Failure) and again.kind == status
        async with open_client(tmp_path, retry_failed=True) as client:
            assert isinstance(await client.answer(request()), Reply)
        async with open_client(tmp_path, provider=refusing()) as client:
            kept = await client.answer(request())
        assert isinstance(kept, Reply) and kept.cached

    run(main)
    assert [state for state, _, _ in attempts(tmp_path)] == ["settled", "settled"]


def test_a_second_refusal_is_not_asked_a_third_time(tmp_path: Path) -> None:
    """One new draw a session, however often the same question comes; every draw is paid for once."""

    async def main() -> None:
        for _ in range(3):
            async with open_client(tmp_path, provider=refusing(), retry_failed=True) as client:
                assert isinstance(await client.answer(request()), Failure)

    run(main)
    assert len(attempts(tmp_path)) == 3


def test_a_server_that_nobody_ever_reached_stops_the_run(tmp_path: Path) -> None:
    """Where the first call cannot even connect, the others would wait in vain: the address is named."""

    async def unreachable(_: Request) -> str:
        raise Fault("connection", "All connection attempts failed", again=True)

    async def main() -> None:
        async with open_client(tmp_path, unreachable) as client:
            with pytest.raises(Refused, match="scripted cannot be reached: All connection attempts failed"):
                await client.answer(request())

    run(main)
    assert {charge for _, _, charge in attempts(tmp_path)} == {0}


def test_a_server_that_answered_before_fails_one_call_only(tmp_path: Path) -> None:
    """Connections that break later are a failure of their call."""

    async def sometimes(asked: Request) -> str:
        if asked.user == "lost":
            raise Fault("connection", "All connection attempts failed", again=True)
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, sometimes) as client:
            assert isinstance(await client.answer(request("heard")), Reply)
            lost = await client.answer(request("lost"))
            assert isinstance(lost, Failure) and lost.kind == "connection"
            assert isinstance(await client.answer(request("heard too")), Reply)

    run(main)
