"""The README's commands do what it says they do.

Its ```console blocks are run in order, in a copy of the tree that holds what a clone would, beside
the `make run` they start. Each printed line shown in the README must appear, in the same order, in
what the command really prints. What differs from run to run is compared by shape (see `VARIES`), an
ellipsis stands for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 60
READY_TIMEOUT_S = 60
PRINTED_TIMEOUT_S = 5
PORT_SHOWN = "127.0.0.1:8080"

# Too long for a test, or about a place that this copy is not: the rest of each must make sense.
NOT_RUN = (
    "git clone",
    "cd ",
    "make test",
    "make check",
    "make bench",
    "python loadtests/",
    "docker ",
)
NOT_RUN_FROM_VENV = tuple(f".venv/bin/{start}" for start in NOT_RUN)

VARIES = (
    (r"tk_[a-z]+_[0-9A-Za-z]{28}", "<key>"),
    (r"tk_[a-z]+_[0-9A-Za-z.…*]+", "<key shown in part>"),
    (r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{24,32}\b", "<id>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\d{4}-\d\d-\d\d[T ]?[\d:.]*(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
    (r'"created": ?\d+', '"created": <time>'),
    (r"(?i)^(date|ratelimit|server): .*", r"\1: <varies>"),
    (r"\bpid \d+", "pid <pid>"),
    (r"\b\d+(\.\d+)? (ms|s)\b", "<duration>"),
    (r"[─━═]+", "-"),
    (r"\s+", " "),
)


@dataclass
class Step:
    """One command of the README and the lines it is shown to print."""

    command: str
    shown: list[str] = field(default_factory=list)


def _steps(text: str) -> list[Step]:
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        goes_on = False
        for line in block.splitlines():
            if goes_on:
                steps[-1].command += " " + line.strip().removesuffix("\\")
            elif line.startswith("$ "):
                steps.append(Step(line.removeprefix("$ ").removesuffix("\\")))
            elif line.strip(" .…"):
                assert steps, f"output before any command: {line}"
                steps[-1].shown.append(line)
            goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
    return steps


def _shape(line: str) -> str:
    for pattern, shape in VARIES:
        line = re.sub(pattern, shape, line.strip())
    return line


def _missing(shown: list[str], printed: str) -> list[str]:
    """The shown lines that were not printed, in this order."""
    rest = iter([_shape(line) for line in printed.splitlines()])
    missing = []
    for line in shown:
        parts = [re.escape(_shape(part)) for part in re.split(r"…|\.\.\.", line)]
        wanted = re.compile(r"\s*.*".join(parts))
        if not any(wanted.fullmatch(candidate) for candidate in rest):
            missing.append(line)
            break  # the iterator is used up: what follows could not be told from it
    return missing


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a clone of it would be, its `.venv` made already from what runs this test."""
    clone = tmp_path_factory.mktemp("clone") / "tollkeeper"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
    environment = clone / ".venv"
    venv.create(environment, symlinks=True)
    packages = Path(pytest.__file__).parents[1]
    site = next(environment.glob("lib/python3*/site-packages"))
    (site / "clone.pth").write_text(f"{clone}\n{packages}\n")
    command = environment / "bin/tollkeeper"
    command.write_text(
        f"#!{environment}/bin/python\nimport sys\nfrom gateway.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    for stamp in ("embedded", "dev"):
        (environment / f"{stamp}.stamp").touch()
    return clone


class Terminal:
    """Runs the README's commands: `make run` stays in the background, the rest run to their end."""

    def __init__(self, clone: Path) -> None:
        self._clone = clone
        self._port, control = free_port(), free_port()
        self._running: subprocess.Popen[bytes] | None = None
        self._output = clone.parent / "make-run.txt"
        self._key = ""
        clean = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
        self._environment = clean | {
            "ARGS": f"--port {self._port} --control-port {control}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def do(self, step: Step) -> list[str]:
        """What the README shows and the command did not print."""
        if step.command.startswith("make run"):
            return self._start(step)
        command = step.command.replace(PORT_SHOWN, f"127.0.0.1:{self._port}")
        command = re.sub(r"tk_dev_[0-9A-Za-z]{28}", self._key, command)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._clone,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        missing = _missing(step.shown, done.stdout)
        printed = done.stdout + done.stderr
        if done.returncode != 0 and "curl" not in command:
            return [f"it ended with {done.returncode}:\n{printed}"]
        return [f"{line!r} is not in:\n{printed}" for line in missing]

    def stop(self) -> None:
        """Ctrl-C, as a user would."""
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGINT)
            self._running.wait(COMMAND_TIMEOUT_S)
        self._running = None

    def _start(self, step: Step) -> list[str]:
        self.stop()
        with self._output.open("wb") as output:
            self._running = subprocess.Popen(
                ["bash", "-c", f"exec {step.command}"],
                cwd=self._clone,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + READY_TIMEOUT_S
        ready, missing = False, ["it never became ready"]
        while missing and time.monotonic() < until and self._running.poll() is None:
            time.sleep(0.05)
            if not ready and self._ready():
                ready, until = True, time.monotonic() + PRINTED_TIMEOUT_S
            if ready:
                missing = _missing(step.shown, self._output.read_text())
        printed = self._output.read_text()
        if key := re.search(r"tk_dev_[0-9A-Za-z]{28}", printed):
            self._key = key[0]
        return [f"{line!r} is not in:\n{printed}" for line in missing]

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/readyz", timeout=1):
                return True
        except OSError:
            return False


@pytest.fixture
def terminal(clone: Path) -> Iterator[Terminal]:
    terminal = Terminal(clone)
    yield terminal
    terminal.stop()


def test_what_the_readme_shows_is_what_happens(terminal: Terminal) -> None:
    steps = _steps((ROOT / "README.md").read_text())
    assert any(step.command.startswith("make run") for step in steps)
    assert any("curl" in step.command for step in steps)
    for step in steps:
        if not step.command.startswith(NOT_RUN + NOT_RUN_FROM_VENV):
            problems = terminal.do(step)
            assert problems == [], f"$ {step.command}\n" + "\n".join(problems)


def test_what_the_readme_does_not_run_here_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"(?:^|[`$] ?)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for script in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_links_between_the_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
        for target in re.findall(r"\]\(([^)#]+)", document.read_text())
        if not re.match(r"[a-z]+:", target) and not (document.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("X-Credits-Charged: 0.104", "X-Credits-Charged: 0.104"),
        (f"key tk_dev_{'a' * 28}", f"  key   tk_dev_{'b' * 28}"),
        ('{"id": "…", "total_tokens": 4}', '{"id": "chatcmpl-1", "total_tokens": 4}'),
        ("listening on http://127.0.0.1:8080", "listening on http://127.0.0.1:40001"),
    ],
)
def test_the_comparison_lets_pass(shown: str, printed: str) -> None:
    assert _missing([shown], f"before\n{printed}\nafter") == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["X-Credits-Charged: 0.104"], "X-Credits-Charged: 0.105"),
        (["a", "b"], "b\na"),
        (["HTTP/1.1 200 OK"], "HTTP/1.1 402 Payment Required"),
        (['{"id": "…", "total_tokens": 4}'], '{"id": "chatcmpl-1", "total_tokens": 5}'),
    ],
)
def test_the_comparison_finds(shown: list[str], printed: str) -> None:
    assert _missing(shown, printed)


def test_commands_and_what_they_print_are_told_apart() -> None:
    text = "x\n```console\n$ curl -s \\\n    a\nHTTP \\\n 200\n...\n\n$ make run\n```\n"
    assert _steps(text) == [Step("curl -s  a", ["HTTP \\", " 200"]), Step("make run")]
