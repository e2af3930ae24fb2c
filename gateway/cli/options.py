"""The options that commands share, and how a function becomes a command.

Command modules do without `from __future__ import annotations`: typer reads annotations when it
runs.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
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
CallArgument = Annotated[
    str, typer.Argument(metavar="CALL_ID", help="The X-Request-Id of the call's answer.")
]
PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help='As in "plans list".')]
ExpiresOption = Annotated[
    str, typer.Option("--expires", metavar="WHEN", help='As in "30d" or "2026-12-31".')
]
FileOption = Annotated[
    str, typer.Option("--file", metavar="FILE", help='Of JSON or TOML; "-" is stdin.')
]
NoteOption = Annotated[str, typer.Option("--note", help="Why; for other operators.")]


@dataclass(frozen=True, slots=True)
class Common:
    """What every command can be told: which deployment it works on, and how it answers."""

    config: ConfigOption = None
    data_dir: DataDirOption = DATA_DIR_DEFAULT
    as_json: JsonOption = False


def _number(option: str, text: str) -> Any:
    return typer.Option(option, metavar="N", help=text)


def _credits(option: str, text: str) -> Any:
    return typer.Option(option, metavar="CREDITS", help=text)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a key may do, where it is told."""

    rps: Annotated[int | None, _number("--rps", "Requests per second.")] = None
    rpm: Annotated[int | None, _number("--rpm", "Requests per minute.")] = None
    burst: Annotated[int | None, _number("--burst", "Requests that may come at once.")] = None
    per_month: Annotated[
        int | None, _number("--per-month", "Requests per calendar month, UTC.")
    ] = None
    concurrency: Annotated[int | None, _number("--concurrency", "Requests running at once.")] = None
    cap_day: Annotated[str | None, _credits("--cap-day", "To spend per day, UTC.")] = None
    cap_month: Annotated[str | None, _credits("--cap-month", "To spend per month, UTC.")] = None
    cap_total: Annotated[str | None, _credits("--cap-total", "To spend ever.")] = None
    cap_session: Annotated[
        str | None, _credits("--cap-session", "To spend per session (X-Session-Id).")
    ] = None

    def document(self) -> dict[str, dict[str, int | str]]:
        """What is told, as the API takes it: `{"limits": {...}, "caps": {...}}`; 0 ends one."""
        limits = {
            "requests_per_second": self.rps,
            "requests_per_minute": self.rpm,
            "burst": self.burst,
            "requests_per_month": self.per_month,
            "concurrency": self.concurrency,
        }
        caps = {
            "day": self.cap_day,
            "month": self.cap_month,
            "total": self.cap_total,
            "session": self.cap_session,
        }
        told: dict[str, dict[str, int | str]] = {
            "limits": {name: value for name, value in limits.items() if value is not None},
            "caps": {name: value for name, value in caps.items() if value is not None},
        }
        return {name: part for name, part in told.items() if part}


def command(
    app: typer.Typer, line: str, *, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of `app`; `line` is the example in its help.

    A parameter that is one of the classes above stands for all of its options, which come after
    the command's own, those of the first such parameter last.
    """

    def decorate(work: Callable[..., None]) -> Callable[..., None]:
        own: list[inspect.Parameter] = []
        groups: dict[str, type[Any]] = {}
        for parameter in inspect.signature(work).parameters.values():
            if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
                groups[parameter.name] = parameter.annotation
            else:
                own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        for group in reversed(groups.values()):
            own += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
                for field in fields(group)
            ]

        def wired(**told: Any) -> None:
            whole = {
                name: group(**{field.name: told.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            work(**whole, **told)

        wired.__name__, wired.__doc__ = work.__name__, work.__doc__
        wired.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        wired.__annotations__ = {one.name: one.annotation for one in own}
        app.command(name, epilog=example(line))(wired)
        return work

    return decorate


def example(line: str) -> str:
    """The end of a command's help."""
    return f"Example: {line}"


def new_app(help_text: str, *, root: bool = False) -> typer.Typer:
    """A group of commands, which shows its help when it is called without one.

    The root's has options for completion in shells.
    """
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=root,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
