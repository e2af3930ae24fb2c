"""Completion in shells: scripts to install, and what they are answered."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.remote_cli import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

# Typer's own: take the shell's name, instead of asking who started us.
BY_NAME = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"


def run(*words: str, **environment: str) -> str:
    """What the program prints, as `tollkeeper`."""
    command = [sys.executable, "-c", PROGRAM, *words]
    env = os.environ | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def asked(shell: str, line: str) -> str:
    """What a shell's script is answered when somebody presses tab at the end of a line."""
    return run(
        _TOLLKEEPER_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_ARGS=line,
        COMP_WORDS=line,
        COMP_CWORD=str(line.count(" ")),
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_every_shell(shell: str) -> None:
    script = run("--show-completion", shell, **{BY_NAME: "1"})

    assert f"_TOLLKEEPER_COMPLETE=complete_{shell}" in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_installed_in_ones_home(shell: str, tmp_path: Path) -> None:
    run("--install-completion", shell, **{BY_NAME: "1", "HOME": str(tmp_path)})

    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert f"_TOLLKEEPER_COMPLETE=complete_{shell}" in written


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("tollkeeper ac", "accounts"),
        ("tollkeeper secrets s", "set"),
        ("tollkeeper tail --acc", "--account"),
    ],
)
def test_commands_and_options_are_completed(shell: str, line: str, word: str) -> None:
    assert word in asked(shell, line)


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "tollkeeper"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(run("--show-completion", "bash", **{BY_NAME: "1"}))
    press_tab = (
        f"source {script}; COMP_WORDS=(tollkeeper ac); COMP_CWORD=1; "
        '_tollkeeper_completion tollkeeper; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", press_tab],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "accounts\n"
