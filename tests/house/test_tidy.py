"""The house rules a program can check: sizes, and no floating point where amounts are decided."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = ("gateway", "policies", "tests", "loadtests", "examples")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
LINE_CHARACTERS_MAX = 100

# What policies may import besides itself: no I/O, no clock, no chance, no concurrency.
PURE_MODULES = {
    "__future__",
    "abc",
    "binascii",
    "bisect",
    "codecs",
    "collections",
    "dataclasses",
    "decimal",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "types",
    "typing",
    "zlib",
}
# How a package finds the files it ships, such as policies/lua; nothing else of importlib.
PURE_SUBMODULES = {"collections.abc", "importlib.resources", "importlib.resources.abc"}


def _files(*suffixes: str, folders: tuple[str, ...] = SOURCE_FOLDERS) -> list[Path]:
    found = [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and "__pycache__" not in path.parts
    ]
    assert found, "nothing to check where this test looks for it"
    return found


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _floating_point(tree: ast.AST) -> list[str]:
    """Where a syntax tree could bring a float about: a literal, a true division, a conversion."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex()):
                found.append(f"{node.lineno}: the literal {node.value!r}")
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                found.append(f"{node.lineno}: the operator /")
            case ast.Name(id="float") | ast.Attribute(attr="truediv" | "true_divide"):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def _impure_imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=0, names=names):
                modules = [module or ""]
                if module == "importlib":
                    modules = [f"importlib.{alias.name}" for alias in names]
            case _:
                continue
        found += [
            f"{node.lineno}: {module}"
            for module in modules
            if module not in PURE_MODULES | PURE_SUBMODULES and module.split(".")[0] != "policies"
        ]
    return found


def test_files_stay_within_500_lines() -> None:
    sizes = {
        _name(path): len(path.read_text().splitlines()) for path in _files(".py", ".sql", ".lua")
    }
    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_functions_stay_within_70_lines() -> None:
    long = []
    for path in _files(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{_name(path)}:{node.lineno} {node.name} has {lines}")
    assert long == []


def test_lines_of_sql_and_lua_stay_within_100_characters() -> None:
    """Python's are held by ruff."""
    long = [
        f"{_name(path)}:{number}"
        for path in _files(".sql", ".lua")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_CHARACTERS_MAX
    ]
    assert long == []


def test_policies_hold_no_floating_point() -> None:
    found = {
        _name(path): places
        for path in _files(".py", folders=("policies",))
        if (places := _floating_point(ast.parse(path.read_text())))
    }
    assert found == {}


def test_policies_import_only_pure_parts_of_the_standard_library() -> None:
    assert {name.split(".")[0] for name in PURE_MODULES} <= set(sys.stdlib_module_names)
    found = {
        _name(path): places
        for path in _files(".py", folders=("policies",))
        if (places := _impure_imports(ast.parse(path.read_text())))
    }
    assert found == {}


def test_columns_hold_no_floating_point() -> None:
    found = [
        f"{_name(path)}: {match[0]}"
        for path in _files(".sql")
        for match in re.finditer(r"\b(real|double precision|float[48]?)\b", path.read_text())
    ]
    assert found == []


def test_every_file_opens_with_what_it_is_for() -> None:
    openings = {".py": '"""', ".sql": "--", ".lua": "--"}
    texts = {path: path.read_text() for path in _files(*openings)}
    silent = [
        _name(path)
        for path, text in texts.items()
        if text and not text.startswith(openings[path.suffix])
    ]
    assert silent == []


@pytest.mark.parametrize(
    "code",
    ["x = 0.5", "x = 2j", "x = a / b", "a /= b", "x = float(a)", "x = operator.truediv(a, b)"],
)
def test_the_search_for_floating_point_finds(code: str) -> None:
    assert _floating_point(ast.parse(code))


@pytest.mark.parametrize(
    "code", ["x = a // b", "x = 5", "x: Decimal = Decimal(a)", "x = '0.5 / 2'"]
)
def test_the_search_for_floating_point_lets_pass(code: str) -> None:
    assert _floating_point(ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "import os.path",
        "import policiesx",
        "from time import time",
        "from asyncio import sleep",
        "from importlib import import_module",
        "import importlib.metadata",
        "from gateway import errors",
        "def f():\n    import random",
    ],
)
def test_the_search_for_impure_imports_finds(code: str) -> None:
    assert _impure_imports(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "from policies.units import x",
        "from . import units",
        "import json",
        "from importlib.resources import files",
        "from importlib import resources",
        "from collections.abc import Mapping",
    ],
)
def test_the_search_for_impure_imports_lets_pass(code: str) -> None:
    assert _impure_imports(ast.parse(code)) == []
