"""Where Redis is and how to log in: a `redis_url` taken apart, and dialled.

redis://[[user]:password@]host[:6379][/db]
rediss://…?ca_file=/etc/ssl/redis-ca.pem      certificates are always verified
unix://[[user]:password@]/path/to.sock[?db=0]
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.counters.errors import CountersMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

DEFAULT_PORT = 6379
DEFAULT_HOST = "127.0.0.1"
PARAMETERS = {
    "redis": frozenset({"db"}),
    "rediss": frozenset({"db", "ca_file", "cert_file", "key_file"}),
    "unix": frozenset({"db"}),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server. `str()` names it for people, without its secrets."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str | None = None  # of a unix socket; then host and port say nothing
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"

    async def dial(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect once; logging in is the connection's part.

        Raises: OSError (ssl.SSLError is one) when there is no server to talk to.
        """
        loop = asyncio.get_running_loop()
        if self.path is not None:
            await loop.create_unix_connection(protocol, self.path)
        else:
            await loop.create_connection(protocol, self.host, self.port, ssl=self.tls)


def parse_url(url: str) -> Endpoint:
    """The endpoint of a `redis_url`.

    Raises: CountersMisconfigured, with a sentence that never repeats the URL, for a password may be
    in it.
    """
    try:
        return _parse(urlsplit(url))
    except ValueError as problem:
        raise CountersMisconfigured(f"redis_url: {problem}") from None


def _parse(parts: SplitResult) -> Endpoint:
    if parts.scheme == "redis+cluster":
        raise ValueError("redis+cluster:// is not supported yet; name one server with redis://")
    if parts.scheme not in PARAMETERS:
        raise ValueError("must start with redis://, rediss:// or unix://")
    parameters = dict(parse_qsl(parts.query))
    for unknown in parameters.keys() - PARAMETERS[parts.scheme]:
        raise ValueError(f'parameter "{unknown}" is unknown for {parts.scheme}://')
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if user is not None and password is None:
        raise ValueError(
            "has a user without a password; a lone password is written redis://:password@host"
        )
    if parts.scheme == "unix":
        if not parts.path or parts.hostname:
            raise ValueError("needs an absolute path after unix://, as in unix:///run/redis.sock")
        database = _database(parameters.get("db", "0"))
        return Endpoint(path=unquote(parts.path), database=database, user=user, password=password)
    return Endpoint(
        host=parts.hostname or DEFAULT_HOST,
        port=parts.port or DEFAULT_PORT,
        database=_database(parameters.get("db") or parts.path.strip("/") or "0"),
        user=user,
        password=password,
        tls=_tls(parameters) if parts.scheme == "rediss" else None,
    )


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("the database must be a number, as in redis://host:6379/0")
    return int(text)


def _tls(parameters: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=parameters.get("ca_file"))
        if "cert_file" in parameters:
            context.load_cert_chain(parameters["cert_file"], parameters.get("key_file"))
    except OSError as problem:
        raise ValueError(f"a TLS file cannot be used: {problem.strerror or problem}") from None
    return context
