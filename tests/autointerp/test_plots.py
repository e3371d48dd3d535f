"""Figures show the counted units, and come out the same every time."""

import csv
from pathlib import Path

import numpy as np
import pytest

from autointerp.compare import Comparison, compare
from autointerp.records.outcome import Outcome
from autointerp.report import floor_to_ceiling
from autointerp.report.plots import write_plots
from autointerp.statistics import Estimate
from tests.autointerp.synthetic_outcomes import arm_info, outcome, realistic

FIGURES = {"score_distribution", "score_by_interval", "score_by_density", "density_histogram"}


@pytest.fixture(scope="module")
def run() -> tuple[list[Outcome], Comparison]:
    """Two arms, the last ten units uncounted."""
    outcomes, arms = realistic(80, 40)
    del outcomes[110]
    return outcomes, compare(outcomes, arms, "features", 0)


@pytest.fixture(scope="module")
def folder(run: tuple[list[Outcome], Comparison], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of `run`."""
    out = tmp_path_factory.mktemp("run") / "figures"
    write_plots(out, *run)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_has_png_svg_and_csv(folder: Path) -> None:
    """Four figures in three formats, and nothing half-written beside them."""
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{end}" for name in FIGURES for end in ("png", "svg", "csv")
    }
    assert (folder / "score_distribution.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "score_distribution.svg").read_text(encoding="utf-8")


def test_figures_are_deterministic(run: tuple[list[Outcome], Comparison], folder: Path, tmp_path: Path) -> None:
    """Drawn again from the outcomes in another order, every file has the same bytes."""
    outcomes, comparison = run
    write_plots(tmp_path, outcomes[::-1], comparison)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_the_data_behind_the_distribution_gives_the_median(run: tuple[list[Outcome], Comparison], folder: Path) -> None:
    """The CSV holds exactly the scored units of the counted prefix."""
    held = rows(folder / "score_distribution.csv")
    for arm in run[1].arms:
        scores = [float(row["spearman"]) for row in held if row["arm"] == arm.info.label]
        median = arm.measures["spearman"].median
        assert isinstance(median, Estimate)
        assert len(scores) == arm.funnel.scored
        assert np.median(scores) == pytest.approx(median.value)


def test_the_data_behind_the_intervals_is_the_comparison(run: tuple[list[Outcome], Comparison], folder: Path) -> None:
    """Twelve means per arm with their intervals."""
    held = rows(folder / "score_by_interval.csv")
    assert len(held) == 24
    mean = run[1].arms[0].intervals[11].mean
    assert isinstance(mean, Estimate)
    assert float(held[11]["mean"]) == mean.value
    assert float(held[11]["low"]) == mean.low


def test_the_density_histogram_counts_every_unit_that_fires(
    run: tuple[list[Outcome], Comparison], folder: Path
) -> None:
    """Units that fire are counted once each, whether scored or not; those that never fire are left out."""
    held = rows(folder / "density_histogram.csv")
    counted = [each for each in run[0] if each.order < 110]
    alive = sum(each.unit.arm == "features" and each.statistics.density_explain > 0 for each in counted)
    assert sum(int(row["units"]) for row in held if row["arm"] == "features") == alive


@pytest.mark.parametrize("n_arms", [2, 10])
def test_arms_stand_between_floor_and_ceiling(n_arms: int, tmp_path: Path) -> None:
    """One figure of all protocols; its rows are the comparison's means with their intervals, every arm in each."""
    labels = ["features", *(f"features:{i}" for i in range(n_arms - 1))]
    outcomes = [outcome(i, labels[i % n_arms], i, 0.3 + 0.01 * (i % 7)) for i in range(8 * n_arms)]
    arms = [arm_info(label, 8, "features" if label == "features" else "control") for label in labels]
    comparison = compare(outcomes, arms, "features", 0)
    written = floor_to_ceiling.write(tmp_path, {"monosemanticity-2023": comparison, "other": comparison})
    assert all(path.stat().st_size for path in written)
    held = rows(tmp_path / "floor_to_ceiling.csv")
    assert {(row["protocol"], row["arm"]) for row in held} == {
        (protocol, label) for protocol in ("monosemanticity-2023", "other") for label in labels
    }
    mean = comparison.arms[0].measures["spearman"].mean
    assert isinstance(mean, Estimate)
    score = next(row for row in held if row["what"] == "score")
    assert (float(score["mean"]), float(score["low"]), float(score["high"])) == (mean.value, mean.low, mean.high)
    assert (score["asked"], score["scored"]) == ("8", "8")
    assert any(row["what"] == "unigram" for row in held)


def test_a_run_with_hardly_any_units_is_drawn(tmp_path: Path) -> None:
    """One unit with a score below zero that never fires, beside empty arms: all figures come out all the same."""
    outcomes = [outcome(0, "features", 0, -0.2, density=0.0)]
    arms = [arm_info("features", 3), *(arm_info(f"sae:{i}", 0, "sae") for i in range(6))]
    written = write_plots(tmp_path, outcomes, compare(outcomes, arms, "features", 0))
    assert all(path.stat().st_size for path in written)
    assert len(rows(tmp_path / "score_by_density.csv")) == 1
