"""The options that commands share, and how a command's help shows an example.

Command modules do without `from __future__ import annotations`: typer reads annotations when it
runs.
"""

from pathlib import Path
from typing import Annotated

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
