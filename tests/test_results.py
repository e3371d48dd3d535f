"""The committed demonstration run is what its rows say."""

import json
import re
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


def test_the_readme_quotes_the_training_step() -> None:
    """Every ratio of the README's sentence is one of the committed table."""
    from benchmarks.sae_step import RESULTS, ratios

    readme = " ".join((DEMO.parent.parent / "README.md").read_text(encoding="utf-8").split())
    sentence = readme[readme.index("- A training step on") : readme.index("[table](results/benchmarks/sae_step.md)")]
    measured = json.loads((RESULTS / "sae_step.json").read_text(encoding="utf-8"))
    quoted = [
        found
        for setting in measured["settings"]
        if setting["batch"] == 4096 and setting["kind"] in {"relu", "topk"}
        for _, _, _, found, _ in ratios(setting)
    ]
    assert sorted(re.findall(r"\d\.\d\d", sentence)) == sorted(f"{each:.2f}" for each in quoted)


def test_the_readme_quotes_the_run() -> None:
    """The README shows the run's figure and its medians."""
    readme = (DEMO.parent.parent / "README.md").read_text(encoding="utf-8")
    assert "results/demo/figures/score_distribution.png" in readme
    summary = json.loads((DEMO / "summary.json").read_text(encoding="utf-8"))
    for arm in summary["arms"]:
        assert f"{arm['measures']['spearman']['median']['value']:.3f}" in readme
