"""What a run says of itself before and while it pays: what it will cost, and what differences it can see."""

import sys
from collections.abc import Sequence
from pathlib import Path

from autointerp.arms import FEATURES
from autointerp.config import RunConfig
from autointerp.llm.ledger import LedgerRow
from autointerp.manifest import run_key
from autointerp.power import foreseen
from autointerp.records.explanation import Explanation
from autointerp.records.outcome import Outcome
from autointerp.records.unit import Unit
from autointerp.report import tables, terminal
from autointerp.spending import PILOT, Forecast, ledger
from sae.errors import UserError


class Pilot:
    """Holds a session against its forecast as its units end."""

    def __init__(self, config: RunConfig, directory: Path, units: Sequence[Unit], forecast: Forecast) -> None:
        self._config, self._directory, self._units, self._forecast = config, directory, units, forecast
        self._outcomes: list[Outcome] = []
        self._explained = 0
        self.projected = forecast.expected
        """What this session's calls will cost, in nano-dollars."""

    def begin(self) -> None:
        """Say what is expected before anything is paid."""
        if rows := self._forecast.rows:
            terminal.say(terminal.foreseen(rows, limited=self._config.max_cost is not None))
        say_power(self._units, self._directory)

    def check(self) -> None:
        """Say that the run costs more than expected; raises `Overrun` where nobody limits it or could answer."""
        may_go_on = self._config.max_cost is not None or sys.stdin.isatty()
        if said := self._forecast.check(self._spent(), may_go_on=may_go_on):
            terminal.say(said)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """A unit has ended; after the first `PILOT` explained ones the forecasts are held against them."""
        if not (self._forecast.rows and any(isinstance(each.explanation, Explanation) for each in outcomes)):
            return
        self._explained += 1
        if self._explained <= PILOT:
            self._outcomes.extend(outcomes)
        if self._explained == PILOT:
            _say(self._units, self._outcomes, f"as the scores of the first {PILOT} units scatter")
        if self._explained % PILOT == 0:
            self.projected = self._forecast.projected(self._spent())
        if self._explained == PILOT and not self._config.batch:
            self.check()

    def _spent(self) -> list[LedgerRow]:
        return ledger(self._config, self._directory, run_key(self._config))


def say_power(units: Sequence[Unit], directory: Path) -> None:
    """The smallest differences that the run can see, as far as an earlier session of it knows."""
    try:
        known = tables.read_outcomes(directory).outcomes
    except UserError:
        known = ()
    _say(units, known, "as scores scatter in this directory")


def _say(units: Sequence[Unit], known: Sequence[Outcome], whence: str) -> None:
    if said := foreseen(FEATURES, units, next(iter(tables.by_protocol(known).values()), ()), whence):
        terminal.say(said)
