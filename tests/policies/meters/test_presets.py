"""Presets: the usage of well-known APIs, in the shapes in which they answer."""

from __future__ import annotations

import json

import pytest

from policies.catalog import MeterSpec, Price
from policies.meters import PRESETS, MeterPlan, Tools, parse_sources

TOOLS = Tools(json.loads)
JSON, SSE = "application/json; charset=UTF-8", "text/event-stream; charset=utf-8"


def price(*presets: str) -> Price:
    return Price(meters=tuple(MeterSpec(name, parse_sources(name), 1, 1) for name in presets))


def read(presets: tuple[str, ...], content_type: str, body: bytes) -> tuple[int | None, ...]:
    """The same wherever the body is cut in two, and byte by byte."""
    plan = MeterPlan(price(*presets), content_type)
    whole = plan.read_whole(TOOLS, body, (), None, 0).units
    for cut in range(len(body)):
        meter = plan.open(TOOLS, (), None)
        meter.feed(body[:cut])
        meter.feed(body[cut:])
        assert meter.reading().units == whole, cut
    meter = plan.open(TOOLS, (), None)
    for index in range(len(body)):
        meter.feed(body[index : index + 1])
    assert meter.reading().units == whole
    return whole


def sse(*events: dict[str, object], named: bool = False) -> bytes:
    lines = b""
    for event in events:
        if named:
            lines += f"event: {event['type']}\n".encode()
        lines += b"data: " + json.dumps(event).encode() + b"\n\n"
    return lines


OPENAI = ("openai.input_tokens", "openai.output_tokens", "openai.total_tokens")
CHAT_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 0},
}
RESPONSE_USAGE = {
    "input_tokens": 37,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 48,
}


def chat_chunk(content: str | None, usage: object = None) -> dict[str, object]:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return {"id": "c", "object": "chat.completion.chunk", "choices": choices, "usage": usage}


def test_openai_chat_completions_are_read() -> None:
    answer = {"id": "c", "choices": [{"message": {"content": '"usage": 1'}}], "usage": CHAT_USAGE}
    assert read(OPENAI, JSON, json.dumps(answer).encode()) == (19, 10, 29)
    stream = sse(chat_chunk("He"), chat_chunk("llo"), chat_chunk(None, CHAT_USAGE))
    assert read(OPENAI, SSE, stream + b"data: [DONE]\n\n") == (19, 10, 29)


def test_openai_streams_that_nobody_asked_for_their_usage_are_missing() -> None:
    stream = sse(chat_chunk("He"), chat_chunk("llo")) + b"data: [DONE]\n\n"
    assert read(OPENAI, SSE, stream) == (None, None, None)


def test_openai_embeddings_have_no_output() -> None:
    answer = {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert read(OPENAI, JSON, json.dumps(answer).encode()) == (8, None, 8)


def test_openai_responses_are_read() -> None:
    answer = {"id": "r", "object": "response", "output": [], "usage": RESPONSE_USAGE}
    assert read(OPENAI, JSON, json.dumps(answer).encode()) == (37, 11, 48)
    for ending in ("response.completed", "response.incomplete", "response.failed"):
        stream = sse(
            {"type": "response.created", "response": {"id": "r", "usage": None}},
            {"type": "response.output_text.delta", "delta": '{"input_tokens": 9}'},
            {"type": ending, "response": {"id": "r", "output": [], "usage": RESPONSE_USAGE}},
            named=True,
        )
        assert read(OPENAI, SSE, stream) == (37, 11, 48)


def test_openai_images_are_read() -> None:
    usage = {"input_tokens": 50, "output_tokens": 1056, "total_tokens": 1106}
    answer = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage}
    assert read(OPENAI, JSON, json.dumps(answer).encode()) == (50, 1056, 1106)
    stream = sse(
        {"type": "image_generation.partial_image", "b64_json": "aGk="},
        {"type": "image_generation.completed", "b64_json": "aGk=", "usage": usage},
        named=True,
    )
    assert read(OPENAI, SSE, stream) == (50, 1056, 1106)


ANTHROPIC = (
    "anthropic.input_tokens",
    "anthropic.output_tokens",
    "anthropic.cache_read_tokens",
    "anthropic.cache_write_tokens",
)
MESSAGE_START = {
    "type": "message_start",
    "message": {
        "id": "m",
        "content": [],
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 7,
            "output_tokens": 1,
        },
    },
}


def message_delta(output: int, **usage: int | None) -> dict[str, object]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": output, **usage},
    }


TEXT_DELTA = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": "H"},
}


def test_anthropic_messages_are_read() -> None:
    usage = {
        "input_tokens": 25,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 7,
        "output_tokens": 15,
    }
    answer = {"id": "m", "type": "message", "content": [], "usage": usage}
    assert read(ANTHROPIC, JSON, json.dumps(answer).encode()) == (25, 15, 7, 3)


def test_anthropic_streams_begin_with_the_input_and_end_with_the_output() -> None:
    stream = sse(
        MESSAGE_START,
        {"type": "ping"},
        TEXT_DELTA,
        message_delta(15),
        {"type": "message_stop"},
        named=True,
    )
    assert read(ANTHROPIC, SSE, stream) == (25, 15, 7, 3)


def test_anthropic_output_is_a_running_total() -> None:
    stream = sse(MESSAGE_START, message_delta(5), TEXT_DELTA, message_delta(15), named=True)
    assert read(ANTHROPIC, SSE, stream) == (25, 15, 7, 3)


def test_anthropic_input_that_grew_while_tools_ran_counts() -> None:
    stream = sse(MESSAGE_START, message_delta(15, input_tokens=90), named=True)
    assert read(ANTHROPIC, SSE, stream) == (90, 15, 7, 3)
    unknown = sse(MESSAGE_START, message_delta(15, input_tokens=None), named=True)
    assert read(ANTHROPIC, SSE, unknown) == (25, 15, 7, 3)


def test_an_anthropic_stream_that_is_cut_has_an_input_but_no_output_yet() -> None:
    cut = sse(MESSAGE_START, TEXT_DELTA, named=True) + b'event: message_delta\ndata: {"type": "mess'
    assert read(ANTHROPIC, SSE, cut) == (25, None, 7, 3)


GOOGLE = ("google.input_tokens", "google.output_tokens", "google.total_tokens")
FIRST_PART = {
    "candidates": [{"content": {"parts": [{"text": "He"}]}}],
    "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8},
}
LAST_PART = {
    "candidates": [{"content": {"parts": [{"text": "llo"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 8,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 100,
        "toolUsePromptTokenCount": 2,
        "totalTokenCount": 130,
    },
}


def test_google_counts_thoughts_as_output_and_what_tools_give_as_input() -> None:
    assert read(GOOGLE, JSON, json.dumps(LAST_PART).encode()) == (10, 120, 130)
    assert read(GOOGLE, SSE, sse(FIRST_PART, LAST_PART)) == (10, 120, 130)


def test_google_streams_may_be_one_long_list() -> None:
    stream = b"[" + json.dumps(FIRST_PART).encode() + b"\n,\r\n" + json.dumps(LAST_PART).encode()
    assert read(GOOGLE, JSON, stream + b"\n]\n") == (10, 120, 130)
    assert read(GOOGLE, JSON, stream) == (None, None, None)


def test_google_leaves_out_what_is_zero() -> None:
    usage = {"promptTokenCount": 8, "thoughtsTokenCount": 5, "totalTokenCount": 13}
    answer = json.dumps({"candidates": [], "usageMetadata": usage}).encode()
    assert read(GOOGLE, JSON, answer) == (8, 5, 13)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "usage",
    [None, "9", [9], {}, {"total_tokens": "9"}, {"total_tokens": -1}, {"input_tokens": 0.5}],
)
@pytest.mark.parametrize("content_type", [JSON, SSE, "application/x-ndjson", ""])
def test_a_usage_of_another_shape_is_missing(preset: str, usage: object, content_type: str) -> None:
    answer = {"usage": usage, "usageMetadata": usage, "message": {"usage": usage}}
    body = json.dumps(answer).encode() if content_type == JSON else sse(answer)
    assert read((preset,), content_type, body) == (None,)
