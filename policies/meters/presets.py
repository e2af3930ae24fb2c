"""Short names for where the usage of well-known APIs stands, whole answers and streams alike.

openai      chat completions, completions, embeddings, images, transcriptions, and the Responses
            API. A chat's stream says it only when asked to (`ensure_usage`).
anthropic   messages. A stream begins with the input, and its running total of the output stands
            in every `message_delta`; the 1 that it begins with counts nothing, or a stream that is
            cut would cost no more. What is read from or written to the cache is no input.
google      generateContent. Streams repeat it in every part, as events or as one long list.
            What a model thinks is output; what a tool gives it is input.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from policies.catalog import Source

if TYPE_CHECKING:
    from collections.abc import Mapping


def _openai(*names: str) -> tuple[Source, ...]:
    usage = [f"/usage/{name}" for name in names]
    return (
        *(Source("response.json", pointer) for pointer in usage),
        *(Source("response.sse", pointer) for pointer in usage),
        Source("response.sse", f"/response/usage/{names[-1]}"),
    )


def _anthropic(name: str) -> tuple[Source, ...]:
    return (
        Source("response.json", f"/usage/{name}"),
        Source("response.sse", f"/usage/{name}"),
        Source("response.sse", f"/message/usage/{name}"),
    )


def _google(*names: str) -> tuple[Source, ...]:
    def pointer(prefix: str) -> str:
        return "+".join(f"{prefix}/usageMetadata/{name}" for name in names)

    return (
        Source("response.json", pointer("")),
        Source("response.json", pointer("/-1")),
        Source("response.sse", pointer("")),
    )


# What these count went in with the request: nothing of a cut answer tells of it.
INPUT_PRESETS = ("openai.input_tokens", "anthropic.input_tokens", "google.input_tokens")
PRESETS: Mapping[str, tuple[Source, ...]] = MappingProxyType(
    {
        "openai.input_tokens": _openai("prompt_tokens", "input_tokens"),
        "openai.output_tokens": _openai("completion_tokens", "output_tokens"),
        "openai.total_tokens": _openai("total_tokens"),
        "anthropic.input_tokens": _anthropic("input_tokens"),
        "anthropic.output_tokens": _anthropic("output_tokens")[:2],
        "anthropic.cache_read_tokens": _anthropic("cache_read_input_tokens"),
        "anthropic.cache_write_tokens": _anthropic("cache_creation_input_tokens"),
        "google.input_tokens": _google("promptTokenCount", "toolUsePromptTokenCount"),
        "google.output_tokens": _google("candidatesTokenCount", "thoughtsTokenCount"),
        "google.total_tokens": _google("totalTokenCount"),
    }
)
