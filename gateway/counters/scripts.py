"""The Lua scripts as the gateway sends them: text, SHA-1, and the packed head of their command."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from gateway.counters.resp import bulk
from policies.scripts import SCRIPTS, compose

# Without a session, whose key comes after these.
KEYS_COUNT = {
    "admit": 4,
    "raise": 4,
    "settle": 5,
    "void": 4,
    "expire": 5,
    "extend": 3,
    "park": 5,
    "touch": 4,
    "unpark": 1,
    "claim": 6,
    "remember": 3,
    "forget": 1,
    "late": 5,
    "withdraw": 4,
    "acknowledge": 2,
    "credit": 2,
    "load": 2,
    "amend": 2,
    "carve": 2,
    "giveback": 2,
    "close": 6,
    "restore": 4,
    "open": 4,
    "resume": 1,
    "inspect": 3,
}


class Script:
    """One script: its text, and the name that the server has for it."""

    __slots__ = ("keys_count", "name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.keys_count = KEYS_COUNT[name]
        # Redis names scripts by SHA-1; nothing here relies on it being hard to collide.
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def head(self, arguments: int, more_keys: int = 0) -> bytes:
        """The command up to its keys. A server that does not know the script answers NOSCRIPT."""
        keys = self.keys_count + more_keys
        parts = 3 + keys + arguments
        return b"*%d\r\n%b%b%b" % (parts, bulk("EVALSHA"), bulk(self.sha), bulk(keys))


def read_scripts() -> dict[str, Script]:
    """Every script by its name, from the installed package."""
    folder = files("policies") / "lua"

    def read(name: str) -> str:
        return folder.joinpath(*name.split("/")).read_text(encoding="utf-8")

    return {name: Script(name, compose(name, read)) for name in SCRIPTS}
