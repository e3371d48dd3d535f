"""The order in which units are admitted: the first ones end before the rest is sent."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.controls import base
from autointerp.pipeline import admission_order, admit
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


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_a_unit_is_followed_by_its_controls(features: int, neurons: int, seed: int) -> None:
    """Arms take turns, controls come with their unit, nobody is left out; the order is that without controls."""
    own = [Unit(arm, i, str(i)) for arm, n in (("features", features), ("neurons", neurons)) for i in range(n)]
    controls = [Unit(f"features:{kind}", i, str(i)) for kind in ("shuffled", "empty") for i in range(features)]
    order = admission_order([*own, *controls], seed, base)
    assert sorted(order, key=str) == sorted([*own, *controls], key=str)
    assert [unit for unit in order if unit in own] == admission_order(own, seed, base)
    for rank, unit in enumerate(order):
        if unit.arm == "features":
            assert [each.index for each in order[rank : rank + 3]] == [unit.index] * 3
            assert [each.arm for each in order[rank + 1 : rank + 3]] == ["features:shuffled", "features:empty"]
    turns = [unit.arm for unit in order if unit in own][: 2 * min(features, neurons)]
    assert turns == ["features", "neurons"] * min(features, neurons)
