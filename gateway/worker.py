"""One worker process: `python -m gateway.worker`, started by the supervisor.

Protocol: one JSON line on stdin, `{"gateway": {…}, "pepper": "hex", "master_key": …}`; one JSON
line on stdout, `{"event": "ready", "pid": …}`, once connections are accepted. It stops on SIGTERM,
and when stdin ends, which means that the supervisor is dead. SIGINT is ignored: Ctrl-C reaches the
whole process group, and the supervisor decides the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

import orjson
import uvloop

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig, parse_listen
from gateway.logs import set_up_logs
from gateway.ports import beside

if TYPE_CHECKING:
    import socket

LISTEN_BACKLOG = 4_096
# How long a worker that was told to stop still takes requests, on connections it had accepted by
# then: their clients could not know.
LAST_REQUESTS_S = 0.5
# The hot path makes no cycles that matter; a young collection every 700 objects would cost it
# several percent.
GC_THRESHOLDS = (50_000, 20, 50)


def main() -> None:
    """Run until told to stop; exit code 0 after an orderly end."""
    set_up_logs()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message = orjson.loads(sys.stdin.buffer.readline())
    settings = WorkerSettings(
        gateway=GatewayConfig(**message["gateway"]),
        pepper=bytes.fromhex(message["pepper"]),
        master_key=message.get("master_key"),
    )
    uvloop.run(_serve(settings))


async def _serve(settings: WorkerSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), _watch_stdin, loop, stop)
    async with run_worker(settings) as worker:
        sock = beside(*parse_listen(settings.gateway.proxy_listen))
        sock.setblocking(False)  # noqa: FBT003 - positional only
        listening = await loop.create_server(worker.server, sock=sock, backlog=LISTEN_BACKLOG)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.stdout.write(orjson.dumps({"event": "ready", "pid": os.getpid()}).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()
        waiting = _accept_waiting(sock)
        listening.close()
        worker.server.leaving = True
        for connection in waiting:
            await loop.connect_accepted_socket(worker.server, connection)
        await asyncio.sleep(LAST_REQUESTS_S)


def _accept_waiting(sock: socket.socket) -> list[socket.socket]:
    """The connections that the kernel has made for us and that nobody accepted yet.

    Closing the socket would reset them: other workers have queues of their own.
    """
    waiting = []
    with contextlib.suppress(OSError):
        while True:
            connection, _ = sock.accept()
            connection.setblocking(False)  # noqa: FBT003 - positional only
            waiting.append(connection)
    return waiting


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the supervisor is gone. It says nothing after the first line."""
    if not os.read(sys.stdin.fileno(), 1_024):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()


if __name__ == "__main__":
    main()
