"""The sample agent keeps its word: what it answers, how it misbehaves on demand, what it counts."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from aiohttp import ClientError, ClientSession, web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AGENT = Path(__file__).parents[2] / "examples/agent/agent.py"
CHAT = "/v1/chat/completions"
POLLS_MAX = 500
HELLO = {"messages": [{"role": "user", "content": "hello there"}]}


def _load_agent() -> Any:
    spec = importlib.util.spec_from_file_location("sample_agent_under_test", AGENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def agent() -> AsyncIterator[str]:
    """A fresh agent on a free port, served the way its `main` does."""
    runner = web.AppRunner(_load_agent().build_app(), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
async def http(agent: str) -> AsyncIterator[ClientSession]:
    async with ClientSession(agent) as session:
        yield session


async def _json(http: ClientSession, path: str, body: object, **headers: str) -> tuple[int, Any]:
    named = {f"X-Agent-{name.replace('_', '-')}": value for name, value in headers.items()}
    async with http.post(path, json=body, headers=named) as answer:
        return answer.status, await answer.json()


async def _seen(http: ClientSession, path: str) -> dict[str, int]:
    async with http.get("/agents/seen") as answer:
        return (await answer.json())[path]


async def _seen_with(http: ClientSession, path: str, count: str) -> dict[str, int]:
    """The counts once this one is no longer zero."""
    for _ in range(POLLS_MAX):
        if (counts := await _seen(http, path))[count]:
            return counts
        await asyncio.sleep(0.01)
    pytest.fail(f"the agent never counted a call as {count}")


async def test_the_openai_sdk_reads_its_json_and_its_streams(agent: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{agent}/v1", api_key="any") as client:
        whole = await client.chat.completions.create(model="m", messages=HELLO["messages"])
        assert whole.choices[0].message.content == "You said: hello there"
        for options in ({}, {"stream_options": {"include_usage": True}}):
            stream = await client.chat.completions.create(
                model="m", messages=HELLO["messages"], stream=True, **options
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == "You said: hello there"
            assert chunks[-1].usage == whole.usage
            assert bool(chunks[-1].choices) is (not options)


async def test_usage_is_what_was_asked_for(http: ClientSession) -> None:
    _, answer = await _json(http, CHAT, HELLO, Usage="1250")
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 1248, "total_tokens": 1250}
    _, answer = await _json(http, CHAT, HELLO, Usage="0")
    assert answer["usage"]["total_tokens"] == 0
    assert await _seen(http, CHAT) == {"calls": 2, "completed": 2, "abandoned": 0, "units": 1250}


@pytest.mark.parametrize("count", [1, 10])
async def test_images_come_in_the_number_asked_for(http: ClientSession, count: int) -> None:
    status, answer = await _json(http, "/agents/image", {"n": count})
    assert (status, answer["usage"], len(answer["data"])) == (200, {"images": count}, count)


@pytest.mark.parametrize("count", [0, 11, -1, True, "2", 1.5, None])
async def test_other_numbers_of_images_are_refused(http: ClientSession, count: object) -> None:
    status, answer = await _json(http, "/agents/image", {"n": count})
    assert status == 400
    assert "1 to 10" in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"messages": []}', b'{"messages": 1}'])
async def test_nonsense_is_a_400_in_openai_shape(http: ClientSession, body: bytes) -> None:
    async with http.post(CHAT, data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_it_fails_with_any_status_asked_for(http: ClientSession) -> None:
    for status in (400, 429, 500, 599):
        assert (await _json(http, "/agents/suggest", {}, Fail=str(status)))[0] == status
    assert (await _seen(http, "/agents/suggest"))["completed"] == 0


@pytest.mark.parametrize("switch", [{"Fail": "200"}, {"Usage": "-1"}, {"Delay_Ms": "x"}])
async def test_a_senseless_switch_is_a_400_that_names_it(
    http: ClientSession, switch: dict[str, str]
) -> None:
    status, answer = await _json(http, "/agents/suggest", {}, **switch)
    assert status == 400
    assert f"X-Agent-{next(iter(switch)).replace('_', '-')}" in answer["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dropped", [0, 1, 20])
async def test_it_drops_the_connection_after_so_many_bytes(
    agent: str, http: ClientSession, dropped: int, *, stream: bool
) -> None:
    reader, writer = await asyncio.open_connection(*agent.removeprefix("http://").split(":"))
    body = json.dumps({**HELLO, "stream": stream}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nX-Agent-Drop: {dropped}\r\nContent-Length: "
    writer.write(head.encode() + b"%d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    received = answer.partition(b"\r\n\r\n")[2]
    if stream and received:  # one chunk: its size, its data, no end
        received = received.partition(b"\r\n")[2].removesuffix(b"\r\n")
    assert len(received) == dropped
    assert (await _seen_with(http, CHAT, "abandoned"))["completed"] == 0


async def test_a_hanging_call_ends_when_its_caller_leaves(agent: str, http: ClientSession) -> None:
    async with ClientSession(agent) as other:
        calling = asyncio.create_task(other.post(CHAT, json=HELLO, headers={"X-Agent-Hang": "1"}))
        await _seen_with(http, CHAT, "calls")
        calling.cancel()
    with pytest.raises((asyncio.CancelledError, ClientError)):
        await calling
    assert await _seen_with(http, CHAT, "abandoned") == {
        "calls": 1,
        "completed": 0,
        "abandoned": 1,
        "units": 0,
    }


async def test_it_streams_as_many_chunks_as_asked_for(http: ClientSession) -> None:
    headers = {"X-Agent-Chunks": "7", "X-Agent-Chunk-Ms": "1"}
    async with http.post(CHAT, json={**HELLO, "stream": True}, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        lines = (await answer.text()).split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [line for line in lines[-2:] if line] == ["data: [DONE]"]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert sum("content" in delta for delta in deltas) == 7
