"""Tables that fit the terminal: texts wrap, columns are left out by rank and named, and nothing is cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import show_text
from kovqa_core.messages.one_line import cut_value

from kovqa_cli.output.console import exit_on_broken_pipe, make_console, plain_text, print_note

if TYPE_CHECKING:
    from rich.text import Text

# Heading, "left", "right" or "text" (which wraps), and its rank: 0 stays; of others the highest is left out first.
Column = tuple[str, str] | tuple[str, str, int]

_GAP = 2  # columns of the terminal between two of the table
_TEXT_WIDTH, _NARROW_WIDTH = (
    20,
    12,
)  # a text is not made narrower while there are columns to leave out; nor at all


@dataclass(frozen=True)
class TableLayout:
    """What of a table fits: its columns by number, and how wide each is; no column, where none of that is readable."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    left_out: tuple[int, ...] = ()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """A table on stdout: as wide as its content in a pipe or file, else as the terminal (or COLUMNS) allows.

    Args:
        columns: heading, side and rank of each.
        rows: cells.
        caption: what stands below.
    """
    texts = [
        [plain_text(cell if isinstance(cell, Message) else cut_value(cell)) for cell in row] for row in rows
    ]
    headings = [show_text(column[0]) for column in columns]
    natural = [_column_width(heading, [row[n] for row in texts]) for n, heading in enumerate(headings)]
    layout = fit_columns(columns, natural, terminal_width())
    with exit_on_broken_pipe():
        if layout.columns:
            _print_grid(columns, headings, texts, layout, caption)
        else:
            _print_records(headings, texts, caption)
    if layout.left_out:
        names = ", ".join(headings[n] or "–" for n in layout.left_out)
        print_note(
            message(
                "cli.columns-left-out",
                "no room for: {columns}; a wider terminal or --json shows all",
                columns=names,
            )
        )


def terminal_width() -> int | None:
    """Columns of the terminal; None where there is none to fit into: a pipe, a file."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return make_console().width
    return None


def fit_columns(columns: Sequence[Column], natural: Sequence[int], width: int | None) -> TableLayout:
    """Which columns of a table stand side by side in a width, and how wide they are.

    Args:
        columns: heading, side and rank of each.
        natural: what each takes without wrapping.
        width: of the terminal; None: without limit.
    """
    chosen = list(range(len(columns)))
    if width is None:
        return TableLayout(tuple(chosen), tuple(natural))
    while True:
        narrowest = {
            n: min(natural[n], _TEXT_WIDTH) if columns[n][1] == "text" else natural[n] for n in chosen
        }
        if (widths := _share_width(chosen, natural, narrowest, width)) is not None:
            break
        ranks = {n: rank for n in chosen if (rank := _rank(columns[n]))}
        if not ranks:
            # Digits stay together; names are folded.
            narrowest = {
                n: natural[n] if columns[n][1] == "right" else min(natural[n], _NARROW_WIDTH) for n in chosen
            }
            widths = _share_width(chosen, natural, narrowest, width)
            break
        chosen.remove(max(ranks, key=lambda n: (ranks[n], n)))
    left_out = tuple(n for n in range(len(columns)) if n not in chosen)
    return TableLayout(tuple(chosen), tuple(widths), left_out) if widths else TableLayout((), ())


def _rank(column: Column) -> int:
    return column[2] if len(column) == 3 else 0


def _share_width(
    chosen: Sequence[int], natural: Sequence[int], narrowest: dict[int, int], width: int
) -> list[int] | None:
    """Widths of columns that fill a terminal at most; None where even the narrowest do not fit."""
    room = width - _GAP * (len(chosen) - 1) - sum(narrowest[n] for n in chosen)
    if room < 0:
        return None
    widths = {}
    # Those that want little more get it; the rest is shared.
    wanting = sorted(chosen, key=lambda n: natural[n] - narrowest[n])
    for place, n in enumerate(wanting):
        more = min(natural[n] - narrowest[n], room // (len(wanting) - place))
        widths[n] = narrowest[n] + more
        room -= more
    return [widths[n] for n in chosen]


def _column_width(heading: str, cells: Sequence[Text]) -> int:
    from rich.cells import cell_len

    return max([cell_len(heading), *(cell_len(cell.plain) for cell in cells), 1])


def _print_grid(
    columns: Sequence[Column],
    headings: Sequence[str],
    rows: Sequence[Sequence[Text]],
    layout: TableLayout,
    caption: str,
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False, expand=False
    )
    for n, width in zip(layout.columns, layout.widths, strict=True):
        side = "right" if columns[n][1] == "right" else "left"
        grid.add_column(Text(headings[n]), justify=side, width=width, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(row[n] for n in layout.columns))
    console = make_console()
    console.print()
    console.width = max(console.width, sum(layout.widths) + _GAP * (len(layout.widths) - 1))
    console.print(grid)
    if caption:
        console.print(plain_text(caption), soft_wrap=terminal_width() is None)
    console.print()


def _print_records(headings: Sequence[str], rows: Sequence[Sequence[Text]], caption: str) -> None:
    """A row after the other, a line for each cell: for a terminal that is too narrow for a table."""
    console = make_console()
    for row in rows:
        console.print()
        for heading, cell in zip(headings, row, strict=True):
            if cell.plain:
                console.print(plain_text(f"{heading}: " if heading else "") + cell, soft_wrap=True)
    if caption:
        console.print(plain_text(caption))
