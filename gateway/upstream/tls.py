"""TLS towards agents: always verified, never below 1.2."""

from __future__ import annotations

import ssl


def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that verifies chain and host name against `ca_file`, or the system's CAs when None.

    Raises: OSError or ssl.SSLError when the file cannot be read as certificates.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
