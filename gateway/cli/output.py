"""What commands print: tables for people, JSON for programs, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# A table that is not shown on a terminal is as wide as it wants to be, up to here.
PIPED_WIDTH = 200


class Column(NamedTuple):
    """A column of a table: its title, the row's field, and whether it holds figures."""

    title: str
    field: str
    figures: bool = False


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_rows(
    name: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    empty: str,
    shown: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> None:
    """A list as a table, or as `{name: [...]}`; `empty` is said when there is nothing.

    `shown` makes a row of the table of what the list has.
    """
    if as_json:
        print_json({name: list(rows)})
        return
    if not rows:
        say(empty)
        return
    print_table(columns, list(map(shown, rows)) if shown else rows)


def print_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.figures else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(_cell(row[column.field]) for column in columns))
    piped = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=piped, highlight=False, markup=False, emoji=False).print(table)


def print_fields(document: Mapping[str, Any], *, without: Collection[str] = ()) -> None:
    """What a document says, a line each; what it says nothing of is left out."""
    for name, value in document.items():
        if name not in without and value is not None:
            say(f"{name}: {_field(value)}")


def say(text: str) -> None:
    """A line for people on stdout, as it is."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """A line about what went wrong, on stderr."""
    sys.stderr.write(text + "\n")


@contextmanager
def progress(title: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while `report(done, total)` is called; none where nobody looks."""
    if not shown or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def short_moment(moment: str | None) -> str:
    """A time of the API to the second, as people read it; empty for never."""
    return f"{moment.partition('.')[0].removesuffix('Z')}Z" if moment else ""


def _field(value: Any) -> str:
    if isinstance(value, dict):
        known = {name: each for name, each in value.items() if each is not None}
        return ", ".join(f"{name} = {_field(each)}" for name, each in known.items())
    return str(value)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return str(value)
