"""Exports: all of a list, of whoever reads it; nobody keeps others from theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from gateway.control.api import serve
from gateway.control.api.exports import CSV, EXPORTS_MAX, NDJSON, Exports
from gateway.control.api.fields import Model, Page, PageQuery
from gateway.control.api.problems import Problem
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api

ACCOUNTS = "/v1/accounts"


class Row(Model):
    """Something to be exported."""

    id: int
    name: str


async def pages(query: PageQuery) -> Page[Row]:
    """Three pages, of which the second has no row that matches."""
    number = int(query.cursor or 0)
    rows = [] if number == 1 else [Row(id=number, name=f"=row {number}")]
    return Page[Row](data=rows, next_cursor=str(number + 1) if number < 2 else None)


async def endless(_query: PageQuery) -> Page[Row]:
    return Page[Row](data=[Row(id=1, name="x" * 2**20)], next_cursor="again")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NDJSON, '{"id":0,"name":"=row 0"}\n{"id":2,"name":"=row 2"}\n'),
        (CSV, "id,name\r\n0,'=row 0\r\n2,'=row 2\r\n"),
    ],
)
async def test_all_pages_are_one_text(kind: str, text: str) -> None:
    pieces = Exports().lines("tenant", kind, Row, pages, PageQuery())
    assert b"".join([piece async for piece in pieces]).decode() == text


async def test_a_tenant_has_one_export_at_a_time_and_a_node_few() -> None:
    exports = Exports()
    running = [exports.lines(n, NDJSON, Row, endless, PageQuery()) for n in range(EXPORTS_MAX)]
    for pieces in running:
        await anext(pieces)

    for tenant in (0, "one more"):
        with pytest.raises(Problem) as refused:
            await anext(exports.lines(tenant, NDJSON, Row, endless, PageQuery()))
        assert refused.value.status == 503
    for pieces in running:
        await pieces.aclose()
    await anext(exports.lines("one more", NDJSON, Row, endless, PageQuery()))


@contextlib.asynccontextmanager
async def exporting(api: Api) -> AsyncIterator[socket.socket]:
    """An export whose client reads nothing."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)  # noqa: FBT003 - the standard library's signature
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        lines = (
            f"GET {ACCOUNTS} HTTP/1.1",
            "Host: x",
            f"Accept: {NDJSON}",
            f"Authorization: Bearer {api.as_('owner').credential}",
        )
        await asyncio.get_running_loop().sock_sendall(
            client, ("\r\n".join(lines) + "\r\n\r\n").encode()
        )
        yield client


@pytest.mark.parametrize("leaves", [False, True])
async def test_who_does_not_read_has_no_export_any_more(
    api: Api, monkeypatch: pytest.MonkeyPatch, leaves: Any
) -> None:
    exports = api.services.exports
    whole = Exports.lines

    def lines(self: Exports, tenant: Any, kind: str, _item: Any, _page: Any, query: Any) -> Any:
        return whole(self, tenant, kind, Row, empty if leaves else endless, query)

    async def empty(_query: PageQuery) -> Page[Row]:
        return Page[Row](data=[], next_cursor="again")

    monkeypatch.setattr(Exports, "lines", lines)
    monkeypatch.setattr(serve, "EXPORT_STALL_S", 60.0 if leaves else 0.2)
    async with exporting(api) as client:
        await eventually(lambda: exports._running)
        if leaves:
            client.close()
        await eventually(lambda: not exports._running)


async def test_a_list_is_exported_whole(api: Api) -> None:
    owner = api.as_("owner")
    for number in range(3):
        await owner.post(ACCOUNTS, {"name": f"bob {number}"})
    answer = await owner.ask("GET", ACCOUNTS, headers={"Accept": NDJSON})
    rows = [json.loads(line)["name"] for line in answer.body.splitlines()]
    assert rows == ["alice", "bob 0", "bob 1", "bob 2"]
