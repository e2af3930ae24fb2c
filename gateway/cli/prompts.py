"""Secrets that people type, or programs pipe. Arguments are no place for them: others see those."""

from __future__ import annotations

import sys

import typer

from gateway.cli.output import complain
from gateway.cli.run import INTERRUPTED, WRONG


def read_hidden(title: str) -> str:
    """What is typed at a terminal, unseen; else all of stdin, but for the newline at its end.

    Nothing, or Ctrl-C, ends the process. Not for coroutines: there, Ctrl-C would be put off until
    something is typed.
    """
    try:
        text = _typed(title) if sys.stdin.isatty() else sys.stdin.read()
    except KeyboardInterrupt:
        complain("")
        raise typer.Exit(INTERRUPTED) from None
    except UnicodeDecodeError:
        text = ""
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        complain(f"tollkeeper: {title}: there is no text, neither typed nor on stdin")
        raise typer.Exit(WRONG)
    return text


def _typed(title: str) -> str:
    import getpass

    try:
        return getpass.getpass(f"{title}: ", stream=sys.stderr)
    except EOFError:
        return ""
