"""The manual builds without a warning, and reading it asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.config import load_config

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself, unlike a link that somebody clicks.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?([^"' >]+)"""
    r"""|<link\b[^>]*\bhref=["']?([^"' >]+)|@import\s+["'(]*([^"')]+)|url\(["']?([^"')]+)"""
)
# The theme's script has diagrams in it, which it fetches for pages that have one.
DIAGRAM = re.compile(r"""class=["'][^"']*\bmermaid\b""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert pages
    fetched = {
        f"{page.name}: {address}"
        for page in pages
        for match in FETCHED.finditer(page.read_text())
        for address in match.groups()
        if address and re.match(r"(https?:)?//", address)
    }
    assert fetched == set()


def test_no_page_has_a_diagram_that_is_drawn_by_a_script_from_elsewhere(site: Path) -> None:
    assert [page.name for page in site.rglob("*.html") if DIAGRAM.search(page.read_text())] == []


def test_every_page_can_be_found_by_its_words(site: Path) -> None:
    index = (site / "search/search_index.json").read_text()
    assert {page.stem for page in (ROOT / "docs").rglob("*.md")} == set(
        re.findall(r'"location":"([a-z0-9_-]+)\.html"', index)
    )


@pytest.mark.parametrize("page", ["index", "openai", "anthropic", "mcp", "upstreams"])
def test_every_config_of_a_page_starts(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "config.toml").write_text(block)
        load_config(tmp_path / "config.toml")


@pytest.mark.parametrize("name", ["openai", "anthropic", "mcp"])
def test_a_page_shows_the_config_of_its_example(name: str) -> None:
    config = (ROOT / "examples" / name / "config.toml").read_text()
    shown = re.search(
        r"^```toml\n(.*?)^```",
        (ROOT / "docs" / f"{name}.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert shown is not None
    assert tomllib.loads(shown[1])["routes"] == tomllib.loads(config)["routes"]
