"""The API's description: complete for programs, readable for people, from nobody but us."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from gateway.control.docs_page import render
from gateway.control.resources import ENDPOINTS

if TYPE_CHECKING:
    from tests.support.api import Api

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


async def seen_by_a_browser(url: str) -> str:
    """The page's elements as a real browser has them, after it has done all it does."""
    assert BROWSER is not None
    child = await asyncio.create_subprocess_exec(
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        output, _ = await child.communicate()
    return output.decode()


async def description(api: Api) -> Any:
    answer = await api.stranger.get("/openapi.json")
    assert answer.status == 200
    return answer.body


async def test_every_endpoint_is_described_once(api: Api) -> None:
    document = await description(api)
    described = {
        (method.upper(), path) for path, one in document["paths"].items() for method in one
    }

    assert document["openapi"] == "3.1.0"
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    names = [
        operation["operationId"] for one in document["paths"].values() for operation in one.values()
    ]
    assert len(names) == len(set(names))


@pytest.mark.skipif(BROWSER is None, reason="no browser on the PATH")
async def test_a_browser_shows_every_operation_with_its_place_in_the_contents(api: Api) -> None:
    page = await seen_by_a_browser(f"{api.url}/docs")

    sections = set(re.findall(r'<section id="([^"]+)"', page))
    assert len(sections) == len(ENDPOINTS)
    assert sections == set(re.findall(r'<a href="#([^"]+)"', page))
    for endpoint in ENDPOINTS:
        assert f"<code>{endpoint.path}</code>" in page


async def test_the_page_asks_no_other_host_and_runs_no_script(api: Api) -> None:
    answer = await api.stranger.get("/docs")

    assert answer.status == 200
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(", answer.body)
    assert set(re.findall(r'(?:href|src)="([^"#]*)', answer.body)) == {"", "/openapi.json"}
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_texts_of_the_description_are_no_markup() -> None:
    page = render(
        {
            "info": {"title": "T", "version": "1", "description": "<script>canary</script>"},
            "paths": {
                "/x": {
                    "get": {
                        "operationId": "x",
                        "summary": "<b>canary",
                        "description": "",
                        "tags": ["<i>"],
                        "responses": {"204": {"description": ""}},
                    }
                }
            },
            "components": {"schemas": {}},
        }
    )

    assert "<script>" not in page
    assert "<b>canary" not in page
    assert "<i>" not in page
