"""`make help` is how a newcomer finds their way: it must name everything there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.side_by_side import SLOWEST_FIRST

ROOT = Path(__file__).parents[2]


def _make(*arguments: str) -> str:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_help_describes_every_target() -> None:
    targets = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    described = dict(re.findall(r"^make ([a-z-]+) +(\S.*)$", _make("help"), re.MULTILINE))
    assert set(targets) == set(described)
    assert {"run", "test", "check", "bench", "help"} <= set(described)


def test_make_alone_only_helps() -> None:
    assert _make() == _make("help")


def test_targets_that_are_no_files_are_declared_so() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


def test_a_second_run_installs_nothing(tmp_path: Path) -> None:
    """The stamp is newer than what it stands for, so make's dry run shows no pip."""
    for name in ("Makefile", "pyproject.toml", "requirements/embedded.txt"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((ROOT / name).read_text())
    python, stamp = tmp_path / ".venv/bin/python", tmp_path / ".venv/embedded.stamp"
    python.parent.mkdir(parents=True)
    python.touch()
    first = _make("--directory", str(tmp_path), "--dry-run", "run")
    stamp.touch()
    second = _make("--directory", str(tmp_path), "--dry-run", "run")
    (tmp_path / "requirements/embedded.txt").write_text("changed")
    third = _make("--directory", str(tmp_path), "--dry-run", "run")
    assert "pip" in first
    assert "pip" not in second
    assert "tollkeeper dev" in second
    assert "pip" in third


def test_every_test_runs_side_by_side_and_some_one_by_one() -> None:
    every = _make("--dry-run", "test", "ARGS=").splitlines()[-1]
    some = _make("--dry-run", "test", "ARGS=tests/policies -x").splitlines()[-1]
    assert every.endswith("-m pytest --numprocesses auto")
    assert some.endswith("-m pytest tests/policies -x")


def test_what_is_dealt_out_in_its_own_way_is_there() -> None:
    """A file that was renamed would go back among the rest, and meet another on port 9100."""
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    for start in SLOWEST_FIRST:
        assert any(name.startswith(start) for name in files), start


def test_the_locks_fix_every_package_by_hash_and_name_no_registry() -> None:
    for name in ("serve", "embedded", "dev"):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert packages
        assert all("==" in one.splitlines()[0] and "--hash=sha256:" in one for one in packages)
        assert not re.search(r"https?://|file:|index-url|find-links", text)


def test_the_locks_agree_with_each_other() -> None:
    def versions(name: str) -> set[str]:
        text = (ROOT / f"requirements/{name}.txt").read_text()
        return set(re.findall(r"^[a-z0-9][^ ;]*==[^ ;]+", text, re.MULTILINE))

    assert versions("serve") < versions("embedded") < versions("dev")
