"""Ports: one is held from when it is chosen until its servers have stopped.

Between a look at a port and its server's start, any other program's outgoing connection may get it.
So whoever starts servers binds the port first, and the servers either listen on that very socket or
bind the port beside it (`share`).
"""

from __future__ import annotations

import errno
import socket


def hold(host: str, port: int = 0, *, only_ipv6: bool = False) -> socket.socket:
    """A port that is ours until the socket is closed: any free one for 0.

    Nobody else can listen there, nor hold it: not even workers of another gateway, which share a
    port among themselves. `held_port` says which one it is. `only_ipv6`: "::" is not every IPv4
    address as well.

    Raises: OSError when it can't be had; `port_problem` has words for it.
    """
    held = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        if only_ipv6 and held.family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port:  # connections that a server of the past had there don't matter
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        # Two that may reuse an address can both hold it until one of them listens.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        held.close()
        raise
    return held


def held_port(held: socket.socket) -> int:
    """Its number."""
    return int(held.getsockname()[1])


def serve_on(held: socket.socket) -> None:
    """Called before the holder listens itself, so that its connections don't keep the next one."""
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def share(held: socket.socket) -> None:
    """Lets servers of this user bind the port beside it (`SO_REUSEPORT`), as `beside` does."""
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def beside(host: str, port: int) -> socket.socket:
    """A socket on a port that is shared: the kernel spreads connections over all that listen."""
    sock = socket.socket(_family(host), socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now.

    For servers that can neither be given a socket nor share a port. Somebody may take it before
    such a server does: callers try again.
    """
    with hold(host) as held:
        return held_port(held)


def listen_text(host: str, port: int) -> str:
    """The address as it is written in a config; `parse_listen` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_problem(error: OSError, port: int) -> str:
    """Why nobody can listen there, for a person."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has"
    return error.strerror or str(error)


def _family(host: str) -> socket.AddressFamily:
    """A name is looked up as IPv4; "localhost" is 127.0.0.1."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
