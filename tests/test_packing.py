"""The packing audit sees what scripted simulators do wrong in packs, and nothing where they do nothing wrong."""

import asyncio

import pytest

from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Failure
from benchmarks.packing import SIZES, Asked, _is_late, audit, first, made_up, report
from benchmarks.packing_judges import answer_as


class Judge:
    """A model that answers as one of the scripted simulators."""

    def __init__(self, name: str) -> None:
        self._say = answer_as(name)

    async def answer(self, request: Request) -> Reply | Failure:
        """Out of the prompt; a token each is read and written, for a nano-dollar."""
        text = self._say({"messages": [{"role": "user", "content": request.user}]})
        return Reply(text, Usage(1, 0, 0, 1), 1, "", cached=False)

    def reject(self, request: Request) -> None:
        """Every answer is of the form asked for."""
        raise AssertionError(request)


def asked(name: str) -> dict[int, Asked]:
    """The audit of a scripted simulator, on one unit."""
    return asyncio.run(audit(Judge(name), "openai/x", first(made_up(1), 1)))


def change(found: dict[int, Asked], size: int) -> float:
    """Difference of the score at `size` to that at 1 per call."""
    return found[size].scores[0] - found[1].scores[0]


def test_an_honest_simulator_is_cleared() -> None:
    """The same score at every size, whatever stands beside an item and wherever it stands."""
    found = asked("honest")
    for size in SIZES:
        assert change(found, size) == pytest.approx(0, abs=1e-12)
        assert found[size].late == pytest.approx([0] * (size > 1), abs=1e-9)
    assert found[1].meter.calls == 60 * found[60].meter.calls
    assert "| 60 per call |" in report("honest", found)


def test_judging_items_against_each_other_is_seen() -> None:
    """The score falls as soon as there is another item in the call."""
    found = asked("contrast")
    assert all(change(found, size) < -0.05 for size in SIZES[1:])


def test_a_simulator_that_overlooks_late_items_is_seen() -> None:
    """Only in long packs; the same items are given lower levels late than early."""
    found = asked("tired")
    assert change(found, 10) == pytest.approx(0, abs=1e-12)
    assert change(found, 60) < change(found, 20) < -0.05
    assert found[60].late[0] < 0


def test_items_stand_as_often_early_as_late() -> None:
    """Forwards and backwards together; in packs that are not full as well."""
    assert _is_late(7, 4).tolist() == [False, False, True, True, False, False, True]
    for n, size in ((60, 20), (60, 1), (12, 4)):
        late = _is_late(n, size)
        assert size == 1 or (late ^ late[::-1]).all()
