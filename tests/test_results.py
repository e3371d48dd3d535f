"""The committed demonstration run is what its rows say."""

import json
from pathlib import Path

from autointerp.compare import compare
from autointerp.report.render import as_json
from autointerp.report.tables import read_outcomes
from autointerp.report.verdict import verdict

DEMO = Path(__file__).parent.parent / "results" / "demo"


def test_the_table_follows_from_the_rows() -> None:
    """The committed summary is the comparison of the committed scores, to the last digit."""
    rows = read_outcomes(DEMO)
    comparison = compare(rows.outcomes, rows.arms, rows.reference, rows.seed)
    committed = json.loads((DEMO / "summary.json").read_text(encoding="utf-8"))
    computed = json.loads(as_json(comparison))
    assert {name: committed[name] for name in computed} == computed
    assert committed["verdict"] == verdict(comparison)


def test_the_readme_quotes_the_run() -> None:
    """The README shows the run's figure and its medians."""
    readme = (DEMO.parent.parent / "README.md").read_text(encoding="utf-8")
    assert "results/demo/figures/score_distribution.png" in readme
    summary = json.loads((DEMO / "summary.json").read_text(encoding="utf-8"))
    for arm in summary["arms"]:
        assert f"{arm['measures']['spearman']['median']['value']:.3f}" in readme
