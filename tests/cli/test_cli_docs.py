"""The snippets of docs/credits.md: configs that start, and words that are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load_config
from tests.support.manual_pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "credits.md"


@pytest.mark.parametrize("text", blocks("credits.md", "toml"))
def test_every_config_of_the_page_starts(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)


def test_every_new_word_of_the_config_is_explained() -> None:
    page = PAGE.read_text()
    for key in (
        *("requests_per_second", "burst", "quota_window", "overage", "overage_cap", "rollover"),
        *("rollover_periods", "low_credits", "refund_expired", "[plans.caps]", "[routes.caps]"),
        *("[routes.limits]", "when_redis_is_down", "lease_s", "backlog_minutes_max"),
    ):
        assert key in page
