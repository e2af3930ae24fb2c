"""Secrets that people type, or programs pipe. Arguments are no place for them: others see those."""

import sys

from gateway.operations.errors import UsageError


def read_hidden(title: str) -> str:
    """What is typed at a terminal, unseen; else all of stdin, but for the newline at its end.

    Raises: UsageError when there is nothing.
    """
    if sys.stdin.isatty():
        import getpass

        try:
            text = getpass.getpass(f"{title}: ", stream=sys.stderr)
        except EOFError:
            text = ""
    else:
        text = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(f"{title}: nothing was given, neither typed nor on stdin")
    return text
