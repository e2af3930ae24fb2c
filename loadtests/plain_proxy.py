"""What we compare ourselves with: the reverse proxy one writes with aiohttp in an afternoon.

uvloop, `web.Application`, one `ClientSession` with an unlimited pool. It forwards; it knows no keys
and no prices, sets no limits, and keeps no books.

    python loadtests/plain_proxy.py --port 9803 --backend http://127.0.0.1:9800
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

if TYPE_CHECKING:
    from collections.abc import Mapping

HOP_BY_HOP = {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


async def _serve(port: int, backend: str) -> None:
    session = ClientSession(
        connector=TCPConnector(limit=0), auto_decompress=False, cookie_jar=DummyCookieJar()
    )

    async def forward(request: web.Request) -> web.Response:
        async with session.request(
            request.method,
            backend + request.path_qs,
            headers=_end_to_end(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers=_end_to_end(answer.headers),
            )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", required=True)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.backend))
