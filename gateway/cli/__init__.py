"""The command line. Nothing else prints for people."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point `tollkeeper`."""
    from gateway.cli.app import app
    from gateway.cli.run import report_crash

    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last resort: a line instead of a traceback
        sys.exit(report_crash(error))
