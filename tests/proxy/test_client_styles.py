"""Before a route is known, a refusal is in the words of the SDK that asks."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.proxy.styles import style_of_client
from policies.catalog import ErrorStyle


@pytest.mark.parametrize(
    ("headers", "style"),
    [
        ({"Anthropic-Version": "2023-06-01", "User-Agent": "curl/8"}, ErrorStyle.ANTHROPIC),
        ({"User-Agent": "OpenAI/Python 3.54.0"}, ErrorStyle.OPENAI),
        ({"User-Agent": "AsyncOpenAI/Python 3.54.0"}, ErrorStyle.OPENAI),
        ({"User-Agent": "OpenAI/JS 6.1.0"}, ErrorStyle.OPENAI),
        ({"User-Agent": "curl/8.1"}, ErrorStyle.PROBLEM),
        ({}, ErrorStyle.PROBLEM),
    ],
)
def test_a_clients_headers_tell_which_errors_it_reads(
    headers: dict[str, str], style: ErrorStyle
) -> None:
    assert style_of_client(CIMultiDict(headers)) is style
