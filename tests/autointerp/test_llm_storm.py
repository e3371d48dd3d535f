"""SIGKILL again and again, over real HTTP: no budget is exceeded, no settled answer is lost or paid for twice."""

from pathlib import Path

import pytest

from tests.servers.storm import Storm, endure

# multiprocessing starts processes over a Unix socket; everything else stays on 127.0.0.1
pytestmark = pytest.mark.enable_socket


def survives(storm: Storm, folder: Path) -> None:
    """What must be true of every storm."""
    toll = endure(storm, folder)
    assert toll.killed > storm.kills / 2  # a process that ends before its moment is not killed
    assert toll.injected and toll.checks > storm.kills
    assert toll.breaches == 0
    assert toll.asked_again == 0
    assert toll.missing == 0
    assert toll.different == 0
    assert toll.billed <= toll.committed


@pytest.mark.parametrize("tight", [False, True], ids=["ample", "tight"])
def test_a_run_survives_being_killed(tmp_path: Path, tight: bool) -> None:
    """Killed at random moments with 64 calls in flight, on a network that fails one request in ten."""
    survives(Storm(calls=80, kills=2 if tight else 3, tight=tight), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("tight", [False, True], ids=["ample", "tight"])
def test_a_run_survives_a_hundred_kills(tmp_path: Path, tight: bool) -> None:
    """The same, far longer."""
    survives(Storm(calls=3000, kills=100, tight=tight), tmp_path)
