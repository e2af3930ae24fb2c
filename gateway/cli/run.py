"""Runs a command's work and turns what it raises into one clear line and an exit code.

0 done · 1 it failed, or an audit found something · 2 the command or the config is wrong · 130
interrupted
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from gateway.cli.output import complain
from gateway.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

FAILED = 1
WRONG = 2
INTERRUPTED = 130
DEBUG_VARIABLE = "TOLLKEEPER_DEBUG"
REPORT = f"please report it with what {DEBUG_VARIABLE}=1 prints"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end; its failures end the process."""
    import asyncio

    try:
        return asyncio.run(work)
    except UsageError as mistake:
        complain(f"tollkeeper: {mistake}")
        raise typer.Exit(WRONG) from None
    except OperationError as failure:
        complain(f"tollkeeper: {failure}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def report_crash(error: Exception) -> int:
    """What nobody foresaw: only its kind, since foreign texts can hold passwords of URLs."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    complain(f"tollkeeper: internal error ({type(error).__name__}): {REPORT}")
    return FAILED
