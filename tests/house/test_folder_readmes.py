"""READMEs of folders tell no tale: the files and tests that they name are there, all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("policies", "gateway", "tests", "loadtests")
    for path in (ROOT / folder).rglob("README.md")
)
# Those that have a table of all their files.
WHOLE = ("gateway/jobs", "gateway/ledger", "gateway/stripe_sync", "policies")
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in (file.stem, *re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8")))
}


@pytest.mark.parametrize("readme", READMES)
def test_every_test_that_a_readme_names_exists(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert set(re.findall(r"`(test_\w+)`", text)) <= TESTS


@pytest.mark.parametrize("folder", WHOLE)
def test_a_readme_names_every_file_of_its_folder(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+\.py)`", text))
    assert {path.name for path in (ROOT / folder).glob("[a-z]*.py")} <= named


def test_the_map_links_every_folder_that_has_a_readme() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = [name for name in READMES if name.startswith(("gateway/", "policies/"))]
    assert [name for name in folders if f"]({name})" not in text] == []
