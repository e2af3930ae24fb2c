"""Whether a request is changed so that its stream reports what it used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gateway.proxy.usage import ensure_usage
from policies.meters.values import DECODED_MAX


def asked(body: bytes | None, start: bytes = b"") -> tuple[bytes | None, bytes]:
    head = SimpleNamespace(_replace=lambda **_: None)
    exchange = SimpleNamespace(head=head, rewriter=None)
    return ensure_usage(cast("Any", exchange), (body, start))


def test_a_stream_is_asked_for_its_usage() -> None:
    body, _ = asked(b'{"stream": true, "messages": []}')
    assert body is not None
    assert b"include_usage" in body


def test_what_is_too_much_to_decode_passes_as_it_is() -> None:
    much = b",".join([b"[]"] * (DECODED_MAX.names + 1))
    body = b'{"stream": true, "messages": [%b]}' % much
    assert asked(body) == (body, b"")
    assert asked(None, b"{") == (None, b"{")
    assert asked(b"") == (b"", b"")
