"""Lists of the API as CSV on stdout, as the API writes them: page after page, nothing is kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, all of the list.")]


async def print_csv(client: ApiClient, path: str, **query: object) -> None:
    """A whole list.

    Raises: as `ApiClient.csv`.
    """
    async for piece in client.csv(path, **query):
        sys.stdout.write(piece)
