"""How a Lua script is put together from its file and the preludes it needs.

A line `-- needs: lib/gate.lua lib/clock.lua` in a script stands for these files, in that order; the
first line of each script is one. A second one, further down, brings what only the general case
needs: what a script defines costs each run that gets there. Tests put another clock in the place of
`lib/clock.lua` and leave every other byte as it is in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = (
    "admit",
    "raise",
    "settle",
    "void",
    "expire",
    "extend",
    "park",
    "touch",
    "unpark",
    "claim",
    "remember",
    "forget",
    "late",
    "withdraw",
    "acknowledge",
    "credit",
    "load",
    "amend",
    "carve",
    "giveback",
    "close",
    "restore",
    "open",
    "resume",
    "inspect",
)
_NEEDS = "-- needs:"


def compose(name: str, read: Callable[[str], str]) -> str:
    """The complete text of a script of `SCRIPTS`.

    `read` returns the text of a file by its name in `policies/lua`, such as `lib/gate.lua`.

    Raises: ValueError when the script does not begin with its `-- needs:` line.
    """
    body = read(f"{name}.lua")
    if not body.startswith(_NEEDS):
        raise ValueError(f'{name}.lua must begin with a line "{_NEEDS} lib/…"')
    parts = []
    for line in body.splitlines():
        if line.startswith(_NEEDS):
            parts += [read(prelude) for prelude in line.removeprefix(_NEEDS).split()]
        else:
            parts.append(line)
    return "\n".join(parts)
