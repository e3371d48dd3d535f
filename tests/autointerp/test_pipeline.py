"""The order in which units are admitted: the first ones end before the rest is sent."""

import asyncio
from collections.abc import Sequence

import pytest

from autointerp.pipeline import admit
from autointerp.records.outcome import Outcome
from autointerp.records.unit import Unit
from autointerp.seams import Overrun

UNITS = [Unit("features", index, str(index)) for index in range(10)]


def admitted(pilot: int, *, at_once: int, stops: bool = False) -> tuple[list[str], object]:
    """What happens in which order, and why the run stopped, if it did."""
    events: list[str] = []

    async def end(rank: int, unit: Unit) -> Sequence[Outcome]:
        events.append(f"begins {unit.name}")
        await asyncio.sleep(0)
        events.append(f"ends {rank}")
        return ()

    def on_pilot() -> None:
        events.append("checked")
        if stops:
            raise Overrun

    done = asyncio.run(admit(UNITS, end, at_once=at_once, pilot=pilot, on_pilot=on_pilot))
    assert (done.asked, done.ended) == (10, sum(event.startswith("ends") for event in events))
    return events, done.stop


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_the_pilot_ends_before_others_begin(at_once: int) -> None:
    """However many may be under way at once; then comes the check, once, and then the rest."""
    events, stop = admitted(3, at_once=at_once)
    checked = events.index("checked")
    assert sorted(events[:checked]) == sorted(f"{verb} {n}" for verb in ("begins", "ends") for n in range(3))
    assert len(events) == 21
    assert stop is None


def test_a_stop_after_the_pilot_sends_nothing_more() -> None:
    """What has ended is kept."""
    events, stop = admitted(3, at_once=100, stops=True)
    assert events[-1] == "checked"
    assert len(events) == 7
    assert isinstance(stop, Overrun)


def test_without_a_pilot_all_are_admitted_at_once() -> None:
    """And nothing is checked between."""
    events, _ = admitted(0, at_once=100)
    assert events[:10] == [f"begins {n}" for n in range(10)]
    assert "checked" not in events
