"""In whose words to refuse a call that has no route yet, which could say it.

By what the vendors' SDKs send: they would show no more than a status of an error in another shape.
It is asked for on the way to a refusal only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.catalog import ErrorStyle

if TYPE_CHECKING:
    from collections.abc import Mapping


def style_of_client(headers: Mapping[str, str]) -> ErrorStyle:
    """The style that the sender of these headers (looked up in any case) understands."""
    if "anthropic-version" in headers:
        return ErrorStyle.ANTHROPIC
    # "OpenAI/Python 3.54.0", "AsyncOpenAI/Python 3.54.0", "OpenAI/JS 6.1.0"
    if "OpenAI/" in headers.get("user-agent", ""):
        return ErrorStyle.OPENAI
    return ErrorStyle.PROBLEM
