"""The page about meters: its configs start, and its bounds are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.proxy.decoders import READABLE_ENCODINGS
from gateway.proxy.forward import REQUEST_READ_MAX_BYTES
from policies.meters import UNITS_MAX
from policies.meters.call import BYTES_PER_UNIT
from policies.meters.decoding import (
    DECODED_BODY_MAX_BYTES,
    DECODED_CHUNK_MAX_BYTES,
    DECODED_PER_ENCODED_MAX,
    DECODED_SMALL_CHUNK_MAX_BYTES,
)
from policies.meters.response_json import JSON_BODY_MAX_BYTES
from policies.meters.response_sse import SSE_EVENT_MAX_BYTES

PAGE = (Path(__file__).parents[2] / "docs" / "meters.md").read_text()
CONFIGS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", CONFIGS)
def test_every_config_of_the_page_about_meters_starts(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)


def test_the_page_about_meters_has_configs() -> None:
    assert len(CONFIGS) >= 4


def test_the_bounds_of_the_page_about_meters_are_those_of_the_code() -> None:
    bounds = [int(number) for number in re.findall(r"(\d+) MiB", PAGE)]
    assert [bound * 1024 * 1024 for bound in bounds] == [
        JSON_BODY_MAX_BYTES,
        SSE_EVENT_MAX_BYTES,
        REQUEST_READ_MAX_BYTES,
        DECODED_BODY_MAX_BYTES,
        DECODED_CHUNK_MAX_BYTES,
        DECODED_SMALL_CHUNK_MAX_BYTES,
    ]
    assert f"{DECODED_PER_ENCODED_MAX} times its length" in PAGE
    assert f"{UNITS_MAX:,}".replace(",", " ") in PAGE
    assert BYTES_PER_UNIT == 4
    assert "four to a unit" in PAGE


def test_the_page_names_the_encodings_that_are_read() -> None:
    sentence = next(line for line in PAGE.splitlines() if "compressed with" in line)
    named = READABLE_ENCODINGS - {"identity", "x-gzip"}
    assert all(encoding in sentence for encoding in named)
