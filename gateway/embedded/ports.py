"""Ports: free ones on loopback, and whether one can be listened on."""

from __future__ import annotations

import contextlib
import errno
import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now.

    Somebody may take it before its server does: callers try again.
    """
    with _socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def listen_problem(host: str, port: int) -> str | None:
    """Why nobody could listen there now; None when it is free.

    Workers share their port, which would hide another program's workers on it: so this asks for
    the port alone.
    """
    try:
        with _socket(host) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not the past's
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken by another program"
        if error.errno == errno.EACCES:
            return f"port {port} needs more rights than this user has"
        return error.strerror or str(error)
    return None


def _socket(host: str) -> socket.socket:
    family = socket.AF_INET
    with contextlib.suppress(OSError):
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
    return socket.socket(family, socket.SOCK_STREAM)
