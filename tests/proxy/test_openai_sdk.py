"""The `openai` package from PyPI, unchanged, against the gateway and the sample agent."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import openai
import pytest

from policies.catalog import ErrorStyle
from tests.support.gateway import CREDIT, chat_route, running_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MESSAGES = [{"role": "user", "content": "hello"}]


@asynccontextmanager
async def sample_agent(port: int) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "examples/agent/agent.py", "--port", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_json_streams_and_lack_of_credits(
    clean_redis_url: str, postgres_url: str, unused_tcp_port: int
) -> None:
    async with sample_agent(unused_tcp_port) as agent_url:
        route = chat_route(agent_url, pattern="/v1/chat/completions", errors=ErrorStyle.OPENAI)
        async with (
            running_gateway(
                clean_redis_url, postgres_url, [route], microcredits=2 * CREDIT
            ) as gateway,
            openai.AsyncOpenAI(
                base_url=gateway.url + "/v1", api_key=gateway.key.text, max_retries=0
            ) as client,
        ):
            whole = await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
            assert whole.choices[0].message.content
            assert whole.usage is not None

            usage = None
            text = ""
            async with await client.chat.completions.create(
                model="m",
                messages=MESSAGES,  # type: ignore[arg-type]
                stream=True,
                extra_headers={"X-Agent-Usage": "40"},
            ) as stream:
                async for part in stream:
                    usage = part.usage or usage
                    text += (part.choices[0].delta.content or "") if part.choices else ""
            assert text
            assert usage is not None
            streamed = (await gateway.settlements(2))[0]
            assert (streamed.ending, streamed.units) == ("completed", "token=40")

            async def spend_all() -> None:
                for _ in range(20):
                    await client.chat.completions.create(
                        model="m",
                        messages=MESSAGES,  # type: ignore[arg-type]
                        extra_headers={"X-Agent-Usage": "900"},
                    )

            with pytest.raises(openai.APIStatusError) as refused:
                await spend_all()
            assert refused.value.status_code == 402
            assert re.search(r"may cost 1\.1 credits; 0\.\d+ are available", str(refused.value))
