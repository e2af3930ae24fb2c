"""How a Lua script is put together from its file and the preludes it needs.

The first line of a script is `-- needs: lib/gate.lua lib/clock.lua`: these files go before it, in
that order. Tests put another clock in the place of `lib/clock.lua` and leave every other byte as it
is in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = (
    "admit",
    "settle",
    "void",
    "expire",
    "extend",
    "late",
    "withdraw",
    "credit",
    "load",
    "amend",
    "close",
    "restore",
    "open",
    "inspect",
)
_NEEDS = "-- needs:"


def compose(name: str, read: Callable[[str], str]) -> str:
    """The complete text of a script of `SCRIPTS`.

    `read` returns the text of a file by its name in `policies/lua`, such as `lib/gate.lua`.

    Raises: ValueError when the script does not begin with its `-- needs:` line.
    """
    body = read(f"{name}.lua")
    first_line = body.split("\n", 1)[0]
    if not first_line.startswith(_NEEDS):
        raise ValueError(f'{name}.lua must begin with a line "{_NEEDS} lib/…"')
    preludes = first_line.removeprefix(_NEEDS).split()
    return "\n".join([*(read(prelude) for prelude in preludes), body])
