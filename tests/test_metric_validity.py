"""The validity benchmark runs at tiny size, and its tables say what they must."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import metric_validity, validity_report


@pytest.fixture(scope="module")
def found() -> dict[str, pd.DataFrame]:
    sizes = metric_validity.Sizes(tokens=0, per_rule=1, per_density=1, draws=2, null_runs=10)
    return metric_validity.measure(sizes, seed=0)


def test_a_census_sees_every_flaw(found: dict[str, pd.DataFrame]) -> None:
    """Over all anchors Pearson falls with missing and with extra labels, wherever these lie."""
    falls = found["labels"].query("metric == 'census Pearson'")
    assert len(falls) == 4 * 2 * len(metric_validity.RULES)
    assert falls["falls"].mean() > 0.9


def test_named_flaws_are_seen_by_samples_too(found: dict[str, pd.DataFrame]) -> None:
    """Extra labels on words of the explanation lower the population estimates."""
    named = found["labels"].query("metric == 'population Pearson' and flaw == 'extra named'")
    assert named["falls"].mean() > 0.8


def test_every_table_and_figure_is_written(found: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    """Markdown, one CSV per question, the figure in two forms; every metric has a line."""
    text = validity_report.write(tmp_path, found, metric_validity.meta_auprc(found["ranking"]), 0, "tiny")
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"metric_validity.{suffix}" for suffix in ("md", "png", "svg")} < names
    assert sum(name.endswith(".csv") for name in names) == 6
    assert set(found["labels"]["metric"]) <= set(pd.read_csv(tmp_path / "metric_validity_validity.csv")["metric"])
    assert all(metric in text for metric in set(found["density"]["metric"]))


def test_quick_has_a_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick` is for tests and is said in the help."""
    monkeypatch.setattr(sys, "argv", ["metric_validity", "--help"])
    with pytest.raises(SystemExit):
        metric_validity.main()
    assert "--quick" in capsys.readouterr().out
