"""Tables of ready text, and how they look in a terminal and in Markdown."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of ready text."""

    title: str
    """What it shows; a grid without rows is only its title."""
    columns: tuple[str, ...]
    """Headings; the first column is text, the others numbers."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""


def as_table(grids: Iterable[Grid], width: int) -> str:
    """For a terminal of `width` characters, without colour; wide cells are folded, never cut."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for grid in grids:
        console.print(grid.title, markup=False, highlight=False)
        if grid.rows:
            console.print(_rich_table(grid))
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def as_markdown(grid: Grid) -> str:
    """A heading and a table."""
    if not grid.rows:
        return f"## {grid.title}"
    alignment = ("---", *["---:"] * (len(grid.columns) - 1))
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (grid.columns, alignment, *grid.rows)]
    return f"## {grid.title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _rich_table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(grid.columns):
        table.add_column(escape(column), justify="right" if i else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*map(escape, row))
    return table
