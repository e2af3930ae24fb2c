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
import socket
import sys

import orjson
import uvloop

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.logs import set_up_logs

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
        sock = _bound_socket(settings.gateway.proxy_listen)
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


def _bound_socket(listen: str) -> socket.socket:
    """A socket that shares its port with the other workers' (the kernel spreads connections)."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, int(port)))
    sock.setblocking(False)  # noqa: FBT003 - positional only
    return sock


if __name__ == "__main__":
    main()
