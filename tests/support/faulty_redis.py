"""A Redis that a test may kill, stop and restart, and a wire to it that loses replies."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis
import redis.asyncio

from gateway.embedded.redis import bundled_redis
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence


DURABLE = ("--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always")


class OwnRedis:
    """A durable server on a unix socket; its folder has a short name, for sockets need one."""

    def __init__(self, *settings: str) -> None:
        self._settings = settings
        self._home = Path(tempfile.mkdtemp(prefix="tk"))
        self._process: subprocess.Popen[bytes] | None = None
        self.path = str(self._home / "r.sock")
        self.url = f"unix://{self.path}"
        self.client = redis.asyncio.Redis(unix_socket_path=self.path)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.kill()
        await self.client.aclose()
        shutil.rmtree(self._home)

    async def start(self) -> None:
        bundled = bundled_redis()
        assert bundled is not None
        self._process = _spawn(
            [
                bundled.path,
                "--unixsocket",
                self.path,
                "--dir",
                self._home,
                *DURABLE,
                *self._settings,
            ]
        )
        await eventually(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Freeze it: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _answers(self) -> bool:
        try:
            await self.client.ping()
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True


def _spawn(command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


class FaultyWire:
    """A proxy before a Redis on a unix socket.

    `lose_reply_to`: when a request holds these bytes, the server's next answer is thrown away and
    both ends are cut: the request has run, and nobody says so. As often as `losses`.
    """

    def __init__(self, path: str, tls: ssl.SSLContext | None = None) -> None:
        self._path = path
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.lose_reply_to: bytes | None = None
        self.losses = 1

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "localhost", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pumps)

    def inject(self, raw: bytes) -> None:
        for client in self._clients:
            client.write(raw)

    def cut(self) -> None:
        for client in list(self._clients):
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        self._clients.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._pump(reader, writer)
        finally:
            self._clients.discard(writer)
            self._pumps.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(self._path)
        losing = False

        async def forward() -> None:
            nonlocal losing
            while data := await reader.read(65536):
                losing = self._loses(data)
                redis_writer.write(data)

        async def back() -> None:
            while data := await redis_reader.read(65536):
                if losing:
                    return
                writer.write(data)

        ways = [asyncio.ensure_future(forward()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            redis_writer.transport.abort()

    def _loses(self, data: bytes) -> bool:
        if self.lose_reply_to is None or self.lose_reply_to not in data or not self.losses:
            return False
        self.losses -= 1
        return True
