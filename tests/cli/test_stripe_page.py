"""docs/stripe.md: configs that can be read, every key of metadata and every choice."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.config.stripe import StripeTable, stripe_document
from gateway.stripe_sync.metadata import keys_of
from policies.billing_options import DunningRules
from tests.support.manual_pages import blocks

PAGE = (Path(__file__).parents[2] / "docs" / "stripe.md").read_text()


@pytest.mark.parametrize("text", blocks("stripe.md", "toml"))
def test_every_config_of_the_page_can_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)


def test_every_key_of_metadata_and_every_choice_is_explained() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert keys_of("plan") | keys_of("pack") <= named
    choices = set(stripe_document(StripeTable(""))) - {"secret_key", "webhook_secrets"}
    assert choices <= named
    assert {field.name for field in fields(DunningRules)} <= named
