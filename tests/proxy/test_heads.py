"""Request heads are refused when two readers could understand them differently."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aiohttp.http_parser import HttpRequestParser

from gateway.errors import Refusal
from gateway.proxy.heads import RequestHead, read_head


def parse(raw: str) -> Any:
    """What aiohttp's parser makes of a head, as the proxy gets it."""
    parser = HttpRequestParser(
        Mock(), asyncio.new_event_loop(), 2**16, max_field_size=32_768, auto_decompress=False
    )
    messages, _, _ = parser.feed_data(raw.replace("\n", "\r\n").encode("latin-1"))
    return messages[0][0]


def head_of(lines: str, start: str = "POST /v1/chat?a=1 HTTP/1.1") -> RequestHead | Refusal:
    return read_head(parse(f"{start}\n{lines}\n\n"))


def test_a_plain_head_is_read_once_and_forwarded_without_what_is_ours() -> None:
    head = head_of(
        "Host: api.example\nAuthorization: Bearer tk_dev_1\nContent-Length: 3\nAccept: */*\n"
        "Keep-Alive: 5\nX-Forwarded-For: 6.6.6.6\nForwarded: for=6.6.6.6\nX-Request-Id: mine"
    )
    assert isinstance(head, RequestHead)
    assert (head.method, head.path, head.query) == ("POST", "/v1/chat", "?a=1")
    assert head.credential == b"tk_dev_1"
    assert head.content_length == 3
    assert head.lines == [b"Accept: */*"]


def test_what_connection_names_stays_here() -> None:
    head = head_of("Host: a\nConnection: close, X-Private\nX-Private: 1\nX-Public: 2")
    assert isinstance(head, RequestHead)
    assert head.lines == [b"X-Public: 2"]


def test_a_credential_for_the_agent_passes_beside_our_key() -> None:
    head = head_of("Host: a\nX-API-Key: tk_dev_1\nAuthorization: Bearer sk-agent")
    assert isinstance(head, RequestHead)
    assert head.credential == b"tk_dev_1"
    assert head.lines == [b"Authorization: Bearer sk-agent"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_our_key_never_passes_whatever_header_it_is_in(scheme: str) -> None:
    head = head_of(f"Host: a\nX-API-Key: tk_dev_1\nAuthorization: {scheme} tk_dev_2")
    assert isinstance(head, RequestHead)
    assert head.lines == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: a,b", 400),
        ("Host: user@a", 400),
        ("Host:", 400),
        ("Host: a\nTransfer-Encoding: gzip, chunked", 501),
        ("Host: a\nUpgrade: h2c\nConnection: Upgrade", 400),
        ("Host: a\nX_Api_Key: 1", 400),
        ("Host: a\nExpect: 200-ok", 400),
    ],
)
def test_ambiguous_heads_are_refused(lines: str, status: int) -> None:
    refusal = head_of(lines)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code, refusal.close) == (status, "bad_request", True)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"Host", b"a"), (b"Host", b"b")],
        [(b"Host", b"a"), (b"Content-Length", b"3"), (b"Content-Length", b"4")],
        [(b"Host", b"a"), (b"Content-Length", b"+3")],
        [(b"Host", b"a"), (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_what_the_parser_should_have_refused_is_refused_again(
    headers: list[tuple[bytes, bytes]],
) -> None:
    message = SimpleNamespace(method="POST", path="/", version=(1, 1), raw_headers=headers)
    refusal = read_head(cast("Any", message))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


@pytest.mark.parametrize(
    "start",
    [
        "POST http://a/v1 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "POST /a/../b HTTP/1.1",
        "POST //a HTTP/1.1",
        "POST /a;b HTTP/1.1",
        "POST /a#b HTTP/1.1",
    ],
)
def test_targets_that_are_no_plain_path_are_refused(start: str) -> None:
    refusal = head_of("Host: a", start)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


def test_transfer_encoding_is_refused_on_http_1_0() -> None:
    refusal = head_of("Host: a\nTransfer-Encoding: chunked", "POST / HTTP/1.0")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


def test_a_session_is_read_and_forwarded_as_it_is() -> None:
    head = head_of("Host: a\nx-session-id: Chat.7_a~b:c-D")
    assert isinstance(head, RequestHead)
    assert head.session == b"Chat.7_a~b:c-D"
    assert head.lines == [b"x-session-id: Chat.7_a~b:c-D"]


def test_without_a_session_there_is_none() -> None:
    head = head_of("Host: a")
    assert isinstance(head, RequestHead)
    assert head.session == b""


@pytest.mark.parametrize(
    "lines",
    [
        "X-Session-Id:",
        "X-Session-Id: a b",
        "X-Session-Id: a,b",
        "X-Session-Id: a|b",
        "X-Session-Id: \xe9",
        f"X-Session-Id: {'a' * 129}",
        "X-Session-Id: a\nX-Session-Id: a",
    ],
)
def test_a_malformed_session_is_refused(lines: str) -> None:
    refusal = head_of(f"Host: a\n{lines}")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (400, "bad_request")
    assert "X-Session-Id" in refusal.detail
