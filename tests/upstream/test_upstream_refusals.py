"""What an agent gets wrong is never passed on as a clean answer."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.upstream import UpstreamBroken, UpstreamClient, UpstreamError, UpstreamTruncated
from gateway.upstream.protocol import HEAD_MAX_BYTES, HEADERS_MAX
from tests.support.nasty_upstream import Conversation, answering, nasty_upstream, speaking
from tests.support.upstream_calls import HI, OK, connections_of, get, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTHS = ["+2", "-2", "2,2", "2, 2", "0x2", "2 3", "", "99999999999999999999999", "²"]

BROKEN = {
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a_request": b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "http_2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "http_0_9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status_of_two_digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status_of_four_digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status_below_100_before_another": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n" + HI,
    "status_below_100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi",
    "switching_protocols": b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi",
    "switching_without_saying_so": b"HTTP/1.1 101 OK\r\n\r\n",
    "control_character_in_the_reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nhi",
    "bare_newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "folded_header": OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi",
    "space_before_the_colon": OK + b"Content-Length : 2\r\n\r\nhi",
    "nul_in_a_value": OK + b"A: b\x00c\r\nContent-Length: 2\r\n\r\nhi",
    "bare_cr_in_a_value": OK + b"A: b\rc\r\nContent-Length: 2\r\n\r\nhi",
    "no_header_name": OK + b": b\r\nContent-Length: 2\r\n\r\nhi",
    "same_length_twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "different_lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "length_and_chunked": OK
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "chunked_and_length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "gzip_coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "unknown_coding": OK + b"Transfer-Encoding: xchunked\r\n\r\nhi",
    "chunked_then_gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\nhi",
    "chunked_twice": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "body_of_a_hint": b"HTTP/1.1 103 E\r\nContent-Length: 3\r\n\r\nabc" + HI,
    **{
        f"length_{text}": OK + b"Content-Length: " + text.encode() + b"\r\n\r\nhi"
        for text in LENGTHS
    },
    "head_too_large": OK + b"A: " + b"b" * HEAD_MAX_BYTES + b"\r\nContent-Length: 2\r\n\r\nhi",
    "head_without_end": OK + b"A: b\r\n" * HEAD_MAX_BYTES,
    "too_many_headers": OK + b"A:\r\n" * HEADERS_MAX + b"Content-Length: 2\r\n\r\nhi",
    "hints_without_end": b"HTTP/1.1 103 E\r\n\r\n" * HEAD_MAX_BYTES,
    "nothing": b"",
    "half_a_head": OK + b"Content-Le",
}
HALF_BODIES = {
    "short_length": OK + b"Content-Length: 9\r\n\r\nhel",
    "no_body_at_all": OK + b"Content-Length: 9\r\n\r\n",
    "long_length": OK + b"Content-Length: 900000\r\n\r\nhel",
    "no_last_chunk": CHUNKED + b"3\r\nhel\r\n",
    "half_a_chunk": CHUNKED + b"9\r\nhel",
    "last_chunk_without_its_end": CHUNKED + b"3\r\nhel\r\n0\r\n",
    "half_a_trailer": CHUNKED + b"3\r\nhel\r\n0\r\nA: b",
}
BAD_CHUNKS = {
    "size_no_number": b"g\r\nhel\r\n0\r\n\r\n",
    "size_negative": b"-1\r\nhel\r\n0\r\n\r\n",
    "size_with_prefix": b"0x3\r\nhel\r\n0\r\n\r\n",
    "size_too_large": b"FFFFFFFFFFFFFFFFF\r\nhel",
    "size_missing": b"\r\nhel\r\n0\r\n\r\n",
    "size_with_bare_newline": b"3\nhel\r\n0\r\n\r\n",
    "size_with_space": b"3 \r\nhel\r\n0\r\n\r\n",
    "chunk_longer_than_its_size": b"3\r\nhello\r\n0\r\n\r\n",
    "bare_cr_in_extension": b"3;a\rb\r\nhel\r\n0\r\n\r\n",
    "length_in_the_trailers": b"3\r\nhel\r\n0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_head_is_no_answer_and_its_connection_is_closed(
    client: UpstreamClient, kind: str
) -> None:
    async with nasty_upstream(answering(BROKEN[kind], then_close=True), answering(HI)) as agent:
        with pytest.raises(UpstreamBroken) as caught:
            await get(client, agent)
        assert caught.value.sent
        assert (await get(client, agent)).body == b"hi"
        assert agent.connections == 2
        assert len(agent.requests) == 2  # never sent twice


@pytest.mark.parametrize("kind", ["head_without_end", "hints_without_end"])
async def test_a_head_without_end_is_given_up_at_its_bound_not_at_its_end(
    client: UpstreamClient, kind: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send_slowly(BROKEN[kind][: HEAD_MAX_BYTES + 4096], size=4096)
        await talk.gone()

    async with nasty_upstream(script) as agent:
        with pytest.raises(UpstreamBroken, match="too large"):
            await asyncio.wait_for(get(client, agent), 20)


@pytest.mark.parametrize("kind", HALF_BODIES)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_that_ends_early_is_never_a_clean_end(
    client: UpstreamClient, kind: str, reset: bool
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(HALF_BODIES[kind])
        if reset:
            talk.reset()

    async with nasty_upstream(script, answering(HI)) as agent:
        with pytest.raises((UpstreamTruncated, UpstreamBroken)):
            await whole(await get(client, agent))
        assert (await get(client, agent)).body == b"hi"
        assert len(agent.requests) == 2


async def test_a_reset_is_no_end_of_a_body_without_framing(client: UpstreamClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(OK + b"\r\nhel")
        await talk.head()  # the test has read what came
        talk.reset()

    async with nasty_upstream(script) as agent:
        answer = await get(client, agent)
        assert await answer.read() == b"hel"
        (connection,) = connections_of(client)
        connection.transport.write(b"read\r\n\r\n")
        with pytest.raises(UpstreamTruncated):
            await answer.read()
        assert not answer.ended


@pytest.mark.parametrize("kind", BAD_CHUNKS)
@pytest.mark.parametrize("streaming", [False, True])
async def test_bad_chunks_are_never_a_clean_end(
    client: UpstreamClient, kind: str, streaming: bool
) -> None:
    parts = [CHUNKED, b"2\r\nhi\r\n", BAD_CHUNKS[kind]]
    sent: Sequence[bytes] = parts if streaming else [b"".join(parts)]

    async def script(talk: Conversation) -> None:
        await talk.request()
        for part in sent:
            await talk.send(part)
            await asyncio.sleep(0.01 if streaming else 0)

    async with nasty_upstream(script, answering(HI)) as agent:
        with pytest.raises(UpstreamTruncated if streaming else UpstreamError):
            await whole(await get(client, agent))
        assert (await get(client, agent)).body == b"hi"


@pytest.mark.parametrize("tail", [b"3\r\nhel\r\n3;" + b"x" * 300_000, b"0\r\nA: " + b"x" * 300_000])
async def test_chunk_framing_without_an_end_is_bounded(client: UpstreamClient, tail: bytes) -> None:
    async with nasty_upstream(speaking(CHUNKED, tail)) as agent:
        with pytest.raises(UpstreamTruncated):
            await whole(await get(client, agent))
        assert not connections_of(client)


@pytest.mark.parametrize(
    "extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"HTTP/1.1 2", b"\x00"]
)
async def test_bytes_behind_an_answer_never_become_part_of_another(
    client: UpstreamClient, extra: bytes
) -> None:
    async with nasty_upstream(speaking(HI + extra), answering(HI)) as agent:
        for _ in range(3):
            answer = await get(client, agent)
            assert (answer.status, answer.body) == (200, b"hi")
        assert agent.connections == 2


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    raw=st.sampled_from(
        [
            OK + b"Content-Length: 5\r\n\r\nhello",
            CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            CHUNKED + b"5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\n",
            b"HTTP/1.1 103 E\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
        ]
    ),
    cuts=st.lists(st.integers(min_value=0, max_value=120), max_size=6),
    missing=st.integers(min_value=0, max_value=40),
)
def test_any_cutting_gives_the_same_body_and_any_shortening_gives_an_error(
    raw: bytes, cuts: list[int], missing: int
) -> None:
    sent = raw[: len(raw) - missing] if missing < len(raw) else b""
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    parts = [sent[a:b] for a, b in pairwise(edges)]

    async def check() -> None:
        script = speaking(*parts, then_close=True)
        async with UpstreamClient() as client, nasty_upstream(script) as agent:
            if not missing:
                assert await whole(await get(client, agent)) == b"hello"
                return
            with pytest.raises((UpstreamBroken, UpstreamTruncated)):
                await whole(await get(client, agent))

    asyncio.run(check())
