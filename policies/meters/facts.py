"""What a price may ask of a request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.meters.jsonrpc import messages_in, method_of, tool_of
from policies.meters.members import is_repeated
from policies.meters.pointer import BYTE_ORDER_MARK, compile_pointer, text_of, value_at
from policies.meters.values import has_too_many_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.catalog import Source
    from policies.meters.pointer import Way
    from policies.meters.reader import Loads

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class RequestFacts:
    """One request; its JSON is decoded at most once, when it is first asked for.

    `path` is canonical and matches `pattern`. `body` is None where it was too long to be read or is
    still to come; `body_bytes` is None where even its length is not known, and may be set once it
    is.
    """

    __slots__ = (
        "_body",
        "_certain",
        "_decoded",
        "_document",
        "_loads",
        "_path",
        "_pattern",
        "_plain",
        "_query",
        "body_bytes",
        "method",
    )

    def __init__(  # noqa: PLR0917 - what a head says, in its order
        self,
        loads: Loads,
        method: str,
        path: str,
        pattern: str,
        query: str,
        body: bytes | None,
        body_bytes: int | None,
        *,
        plain: bool = True,
    ) -> None:
        """`query` may begin with its question mark; `plain`: the body is said to be as it is."""
        self.method = method
        self.body_bytes = body_bytes
        self._loads = loads
        self._path = path
        self._pattern = pattern
        self._query = query.removeprefix("?")
        self._body = body
        self._plain = plain
        self._certain: dict[tuple[Way, ...], bool] = {}
        self._decoded = False
        self._document: object = None

    @property
    def body(self) -> bytes | None:
        """The body as it came; None where it was too long to be read or is still to come."""
        return self._body

    def document(self) -> object:
        """The request's JSON; None where there is none, or too much, or where it is null."""
        if not self._decoded:
            self._decoded = True
            if self._body and not has_too_many_values(self._body):
                try:
                    self._document = self._loads(self._body.removeprefix(BYTE_ORDER_MARK))
                except (ValueError, RecursionError):
                    self._document = None
        return self._document

    def doubt(self, source: Source) -> str | None:
        """Why an agent may read another value than is read here, as the end of a sentence.

        None where there is no doubt, though there may be no value.
        """
        if source.kind == "query":
            twice = len(self._query_values(source.argument)) > 1
            return f'has the query parameter "{source.argument}" twice' if twice else None
        if source.kind != "request.json" or self._body == b"" or self.body_bytes == 0:
            return None
        return self._doubt_of_json(compile_pointer(source.argument).ways, source.argument)

    def _doubt_of_json(self, ways: Sequence[Way], pointer: str) -> str | None:
        if self._body is None:
            return "is too long to be read"
        if not self._plain:
            return "is not said to be plain JSON in UTF-8"
        if self.document() is None:
            return "is no JSON that can be read"
        return None if self._is_certain(ways) else f"can be read in two ways at {pointer}"

    def units(self, source: Source) -> int | None:
        """The units of a source in the request: `request.json`, `request.bytes`; else None.

        None also where an agent could read others (see members.py).
        """
        if source.kind == "request.json":
            pointer = compile_pointer(source.argument)
            units = pointer.units_in(self.document())
            return units if units is not None and self._is_certain(pointer.ways) else None
        return self.body_bytes if source.kind == "request.bytes" else None

    def text(self, source: Source) -> str | None:
        """The value by which a table chooses its case; None where there is none, or several.

        There are several, too, where an agent could read another one (see members.py).
        Of `request.json:/model` a string, integer or bool as JSON writes it; of `path:name` and
        `query:name` the text without escapes; `jsonrpc.method`; `jsonrpc.tool` the name that
        `tools/call` names. A batch has a method (or tool) if all its calls have the same.
        """
        match source.kind:
            case "request.json":
                ways = compile_pointer(source.argument).ways
                value = value_at(ways[0], self.document())
                text = None if value is None else text_of(value)
                return text if text is not None and self._is_certain(ways) else None
            case "path":
                return self._path_value(source.argument)
            case "query":
                return self._query_value(source.argument)
            case "jsonrpc.method":
                return self._of_all_calls(method_of)
            case "jsonrpc.tool":
                return self._of_all_calls(tool_of)
            case _:
                return None

    def _is_certain(self, ways: Sequence[Way]) -> bool:
        asked = tuple(ways)
        if asked not in self._certain:
            self._certain[asked] = not is_repeated(self._body or b"", *asked)
        return self._certain[asked]

    def _path_value(self, name: str) -> str | None:
        wanted = "{" + name + "}"
        # What a `/**` tail matched has no name, and can't shift the segments before it.
        for segment, value in zip(self._pattern.split("/"), self._path.split("/"), strict=False):
            if segment == wanted:
                return _unescaped(value)
        return None

    def _query_value(self, name: str) -> str | None:
        values = self._query_values(name)
        return values.pop() if len(values) == 1 else None

    def _query_values(self, name: str) -> set[str | None]:
        values = set()
        for pair in self._query.replace("+", " ").split("&"):
            key, _, value = pair.partition("=")
            if _unescaped(key) == name:
                values.add(_unescaped(value))
        return values

    def _of_all_calls(self, of_call: Callable[[object], str | None]) -> str | None:
        values = {of_call(call) for call in messages_in(self.document())}
        return values.pop() if len(values) == 1 else None


def _unescaped(text: str) -> str | None:
    """The text without percent escapes; None where they are not UTF-8."""
    if "%" not in text:
        return text
    raw = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), text.encode())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
