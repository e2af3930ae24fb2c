"""A replay comes out of its store as it went in, and is framed as its answer was."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from gateway.proxy.replays import Head, Replay, parse_replay

CALL_ID = "01" * 16
LINES = b"Content-Type: text/plain\r\nX-Odd: \xe9\xff\r\n"
ANSWER = Replay(
    CALL_ID, "completed", 200, 1_250_000, Head(200, b"OK", LINES, b"", events=False), b"a\n\0\xff"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 4\r\n"


class Client:
    """As much of a `Call` as an answer needs."""

    def __init__(self, method: str = "POST", version: tuple[int, int] = (1, 1)) -> None:
        self.message = SimpleNamespace(method=method, version=version)
        self.payload = SimpleNamespace(is_eof=lambda: True)
        self.keep_alive = version == (1, 1)
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def written(replay: Replay, client: Client | None = None) -> tuple[bytes, bytes]:
    client = client or Client()
    replay.write(client)  # type: ignore[arg-type]
    head, _, body = client.written.partition(b"\r\n\r\n")
    return head, body


def framed(framing: bytes, *, body: bytes = ANSWER.body, events: bool = False) -> Replay:
    assert ANSWER.head is not None
    head = ANSWER.head._replace(framing=framing, events=events)
    return ANSWER._replace(head=head, body=body)


@pytest.mark.parametrize(
    "replay",
    [ANSWER, ANSWER.receipt(), ANSWER._replace(body=b""), ANSWER._replace(reserved=7)],
)
def test_it_comes_out_as_it_went_in(replay: Replay) -> None:
    assert parse_replay(replay.encode()) == replay


def test_a_length_stays_a_length_and_chunks_stay_chunks() -> None:
    head, body = written(framed(LENGTH))
    assert LENGTH.strip() in head.split(b"\r\n")
    assert LINES.strip() in head
    assert body == ANSWER.body
    head, body = written(framed(CHUNKED))
    assert CHUNKED.strip() in head.split(b"\r\n")
    assert body == b"4\r\n" + ANSWER.body + b"\r\n0\r\n\r\n"


def test_an_answer_without_a_body_has_the_length_that_it_would_have_had() -> None:
    head, body = written(framed(b"Content-Length: 1000\r\n", body=b""), Client("HEAD"))
    assert b"Content-Length: 1000" in head
    assert body == b""
    assert b"Content-Length" not in written(framed(b"", body=b""), Client("HEAD"))[0]
    nothing = ANSWER._replace(head=Head(204, b"No Content", b"", b"", events=False), body=b"")
    assert b"Content-Length" not in written(nothing)[0]


def test_what_ended_with_its_connection_has_a_length_on_one_that_goes_on() -> None:
    head, body = written(framed(b""))
    assert b"Content-Length: 4" in head
    assert body == ANSWER.body
    assert b"Content-Length: 0" in written(framed(b"", body=b""))[0]


def test_a_client_that_knows_no_chunks_gets_none() -> None:
    client = Client(version=(1, 0))
    head, body = written(framed(CHUNKED), client)
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == ANSWER.body


def test_a_stream_of_events_says_what_it_cost() -> None:
    _, body = written(framed(CHUNKED, body=b"data: x\n\n", events=True))
    assert b"data: x\n\n: credits-charged=1.25\n\n" in body


def test_what_a_task_keeps_is_reserved_not_charged() -> None:
    kept = framed(CHUNKED, body=b"data: x\n\n", events=True)._replace(charged=0, reserved=500_000)
    head, body = written(kept)
    assert b"X-Credits-Reserved: 0.5" in head
    assert b"X-Credits-Charged" not in head
    assert b": credits-reserved=0.5" in body
    assert json.loads(written(kept.receipt())[1])["reserved"] == "0.5"


def test_a_receipt_is_no_answer_of_the_agent() -> None:
    head, body = written(ANSWER.receipt())
    assert head.startswith(b"HTTP/1.1 410 Gone\r\n")
    assert b"Idempotency-Replayed: true" in head
    assert b"X-Request-Id: " + CALL_ID.encode() in head
    told = json.loads(body)
    assert (told["charged"], told["ending"], told["status"]) == ("1.25", "completed", 200)
    assert written(ANSWER.receipt(), Client("HEAD"))[1] == b""
