"""The options that commands share, and how a function becomes a command.

Command modules do without `from __future__ import annotations`: typer reads annotations when it
runs.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

DATA_DIR_DEFAULT = Path(".tollkeeper")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The config; by default config.toml in this folder."
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option("--data-dir", metavar="DIR", help="Where embedded servers keep their data."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name.")]
OneAccountArgument = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="Only of this account; else of all.")
]
KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help='The key\'s number, or its prefix as in "keys list".')
]
GrantArgument = Annotated[
    int, typer.Argument(metavar="GRANT", help='The grant\'s number, as in "grants list".')
]
ExpiresOption = Annotated[
    str, typer.Option("--expires", metavar="WHEN", help='As in "30d" or "2026-12-31".')
]
NoteOption = Annotated[str, typer.Option("--note", help="Why; for other operators.")]
RowsOption = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="Rows at most.")]

# What may be done with a key; a number of 0 takes a limit or a cap away.
RpsOption = Annotated[int | None, typer.Option("--rps", metavar="N", help="Requests per second.")]
RpmOption = Annotated[int | None, typer.Option("--rpm", metavar="N", help="Requests per minute.")]
BurstOption = Annotated[
    int | None, typer.Option("--burst", metavar="N", help="Requests that may come at once.")
]
PerMonthOption = Annotated[
    int | None,
    typer.Option("--per-month", metavar="N", help="Requests per calendar month, UTC."),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option("--concurrency", metavar="N", help="Requests running at once.")
]
CapDayOption = Annotated[
    str | None, typer.Option("--cap-day", metavar="CREDITS", help="Spent per day, UTC.")
]
CapMonthOption = Annotated[
    str | None, typer.Option("--cap-month", metavar="CREDITS", help="Spent per month, UTC.")
]
CapTotalOption = Annotated[
    str | None, typer.Option("--cap-total", metavar="CREDITS", help="Spent ever.")
]
CapSessionOption = Annotated[
    str | None,
    typer.Option("--cap-session", metavar="CREDITS", help="Spent per session (X-Session-Id)."),
]


@dataclass(frozen=True, slots=True)
class Common:
    """What every command can be told: which deployment it works on, and how it answers."""

    config: Path | None
    data_dir: Path
    as_json: bool


def command(
    app: typer.Typer, line: str, *, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of `app`; `line` is the example in its help.

    The function takes `common: Common` first. On the command line that is three options after its
    own, so that no command has to repeat them.
    """

    def decorate(work: Callable[..., None]) -> Callable[..., None]:
        def wired(
            *, config: ConfigOption, data_dir: DataDirOption, as_json: JsonOption, **own: Any
        ) -> None:
            work(Common(config, data_dir, as_json), **own)

        own = list(inspect.signature(work).parameters.values())[1:]
        defaults = {"config": None, "data_dir": DATA_DIR_DEFAULT, "as_json": False}
        shared = [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=wired.__annotations__[option],
            )
            for option, default in defaults.items()
        ]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own
        ] + shared
        wired.__name__, wired.__doc__ = work.__name__, work.__doc__
        wired.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wired.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name, epilog=example(line))(wired)
        return work

    return decorate


def example(line: str) -> str:
    """The end of a command's help."""
    return f"Example: {line}"


def new_app(help_text: str) -> typer.Typer:
    """A group of commands, which shows its help when it is called without one."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
