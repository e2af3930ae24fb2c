"""The Lua scripts as the gateway sends them: text, SHA-1, and the packed head of their command."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from gateway.counters.resp import bulk
from policies.scripts import SCRIPTS, compose

KEYS_COUNT = {
    "admit": 4,
    "settle": 5,
    "void": 4,
    "expire": 5,
    "load": 2,
    "open": 3,
    "amend": 2,
    "grant": 2,
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

    def head(self, arguments: int) -> bytes:
        """The command up to its keys. A server that does not know the script answers NOSCRIPT."""
        parts = 3 + self.keys_count + arguments
        return b"*%d\r\n%b%b%b" % (parts, bulk("EVALSHA"), bulk(self.sha), bulk(self.keys_count))


def read_scripts() -> dict[str, Script]:
    """Every script by its name, from the installed package."""
    folder = files("policies") / "lua"

    def read(name: str) -> str:
        return folder.joinpath(*name.split("/")).read_text(encoding="utf-8")

    return {name: Script(name, compose(name, read)) for name in SCRIPTS}
