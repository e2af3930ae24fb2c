"""TLS towards agents: always verified, never below 1.2."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that verifies chain and host name against `ca_file`, or the system's CAs when None.

    Raises: OSError or ssl.SSLError when the file cannot be read as certificates.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def ended_cleanly(transport: asyncio.Transport) -> bool:
    """Whether the end of the stream is the peer's own word, once `eof_received` was called.

    TCP's FIN is all there is without TLS. With TLS anybody on the way can send one: only
    close_notify counts. uvloop calls `eof_received` for nothing else; asyncio's does for both, so
    the TLS object is asked.
    """
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return bool(tls.read(1) == b"")
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
