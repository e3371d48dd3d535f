"""Controls and arms of other dictionaries, from the command line."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from autointerp.config import load_run
from autointerp.harvesting import stored
from tests.runs import arguments, command, values


@pytest.mark.usefixtures("no_figures")
def test_every_control_runs_and_comes_out_in_its_order(place: Path, tmp_path: Path) -> None:
    """All arms are scored, none beats the quantised oracle, and own explanations beat those of others and none."""
    more = ("--features", "0:12", "--controls", "standard", "--baseline", "shuffled-subject", "--baseline", "neurons")
    out = tmp_path / "out"
    assert command("run", *arguments(place, out, *more)) == 0
    summary = json.loads((out / "summary.json").read_text())
    arms = {arm["info"]["label"]: arm for arm in summary["arms"]}
    assert list(arms) == [
        "features", "shuffled-subject", "neurons", "random", "pca", "neurons-matched",
        "features:shuffled", "features:empty", "features:generic",
    ]  # fmt: skip
    for control in ("features:shuffled", "features:empty", "features:generic"):
        assert arms[control]["funnel"] == arms["features"]["funnel"]

    def median(arm: str, measure: str) -> float:
        return arms[arm]["measures"][measure]["median"]["value"]

    assert median("features:empty", "spearman") == 0
    assert median("features", "spearman") > median("features:shuffled", "spearman")
    assert median("features", "spearman") > median("features:generic", "spearman")
    for arm in arms:
        ceiling, floor = median(arm, "quantised_oracle_spearman"), median(arm, "floor")
        assert 0 <= floor < ceiling
        assert median(arm, "spearman") <= ceiling
    rows = [row for row in values(out) if row["measure"] == "spearman"]
    densities = {arm: [row["density"] for row in rows if row["arm"] == arm] for arm in ("features", "random")}
    assert max(densities["random"]) < 2 * max(densities["features"])  # random directions fire as rarely
    assert {row["single_token"] for row in rows} <= {True, False}
    assert all(row["token_entropy"] >= 0 for row in rows)
    text = (out / "summary.md").read_text()
    assert "Floors, the truth in levels and lifts" in text
    assert "The paradox of the randomised transformer" in text
    explanations = pq.read_table(out / "explanations.parquet").to_pylist()
    by_arm = {arm: sorted(e["text"] or "" for e in explanations if e["arm"] == arm) for arm in arms}
    assert by_arm["features"] == by_arm["features:shuffled"]
    trained = out / "shuffled-subject"
    assert (trained / "cfg.json").exists()
    again = ("--features", "0:12", "--baseline", f"shuffled-subject:{trained}")
    assert command("harvest", *arguments(place, tmp_path / "again", *again)) == 0
    records = [
        [source.record(unit) for unit in source.units() if unit.arm == "shuffled-subject"]
        for source in (stored(load_run(run), run) for run in (out, tmp_path / "again"))
    ]
    assert len(records[0]) == 12
    assert records[0] == records[1]
