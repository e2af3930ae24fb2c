"""Lists of the API as CSV on stdout, as the API writes them: page after page, nothing is kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, all of the list.")]


async def all_or_csv(
    client: ApiClient, path: str, *, as_csv: bool, limit: int | None = None, **query: object
) -> list[Any]:
    """A list, so many of it. As CSV all of it is printed instead, and nothing is left to show.

    Raises: as `ApiClient.all` and `ApiClient.csv`.
    """
    if not as_csv:
        return await client.all(path, limit=limit, **query)
    async for piece in client.csv(path, **query):
        sys.stdout.write(piece)
    return []
