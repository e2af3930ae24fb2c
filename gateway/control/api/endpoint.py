"""What a resource says of each of its operations; the rest is done for all alike (serve.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from pydantic import BaseModel

    from gateway.control.api.ask import Ask
    from gateway.control.api.fields import Model, Query
    from gateway.control.api.roles import Role

    Work = Callable[..., Awaitable[BaseModel | web.StreamResponse | None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    `work` is called with the `Ask` and then, where there are such, the body and the query as they
    were read. It answers a document of the kind `answers`, or None for 204. Parameters of the path
    whose name ends in `_id` are numbers, but `call_id`.
    """

    method: str
    path: str
    summary: str
    roles: frozenset[Role]  # empty: nobody needs to be known
    work: Work
    body: type[Model] | None = None
    query: type[Query] | None = None
    answers: type[Model] | None = None
    status: int = 200
    # It makes something new, and takes an Idempotency-Key so that a repeated one does not.
    creates: bool = False
    # Reads what is changed or deleted: for If-Match, under a lock that changes take in turn.
    reads: Callable[[Ask], Awaitable[BaseModel]] | None = None
    # Its pages can also be had as one stream of CSV or NDJSON.
    exports: bool = False
    # Attempts to get in are counted more strictly.
    guarded: bool = False
    description: str = ""
    tag: str = field(default="")
    extra: dict[str, Any] = field(default_factory=dict)  # of its OpenAPI operation

    def versioned(self) -> bool:
        """Whether the answer is one resource's document, which has an ETag."""
        return self.method in {"GET", "PATCH", "PUT"}

    def needs_body(self) -> bool:
        """Whether something must be said: else no body is an empty one, where something is done."""
        if self.body is None:
            return False
        fields = self.body.model_fields.values()
        return self.method != "POST" or any(field.is_required() for field in fields)

    def item_kind(self) -> type[Model]:
        """What the list is a list of."""
        if self.answers is None:
            raise ValueError(f"{self.path} answers nothing")
        (kind,) = get_args(self.answers.model_fields["data"].annotation)
        return cast("type[Model]", kind)

    def path_names(self) -> list[str]:
        """The names of the path's parameters."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
