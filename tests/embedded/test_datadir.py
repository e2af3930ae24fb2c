"""The data folder: one user at a time, secrets kept."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.embedded.datadir import Running, open_data_dir, read_running, read_secrets
from gateway.embedded.spawn import EmbeddedError
from gateway.identity.master_key import read_master_keys

if TYPE_CHECKING:
    from pathlib import Path

RUNNING = Running(pid=1, redis_url="redis://r", postgres_url="postgresql://p")


def refusal(path: Path) -> str:
    with pytest.raises(EmbeddedError) as caught, open_data_dir(path):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_in_use_is_refused_and_says_by_whom(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "d"):
        assert f"in use by process {os.getpid()}:" in refusal(tmp_path / "d")
    with open_data_dir(tmp_path / "d"):
        pass


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    hold = (
        "import sys, time, pathlib; from gateway.embedded.datadir import open_data_dir\n"
        "with open_data_dir(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert f"in use by process {holder.pid}:" in refusal(tmp_path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with open_data_dir(tmp_path):
        pass


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "d") as folder:
        made = folder.secrets()
        folder.remember_api_key("tk_dev_1")
    with open_data_dir(tmp_path / "d") as folder:
        assert folder.secrets() == dataclasses.replace(made, api_key="tk_dev_1")
    assert read_secrets(tmp_path / "d").api_key == "tk_dev_1"
    assert stat.S_IMODE((tmp_path / "d" / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert len(set(dataclasses.astuple(made))) == 6


def test_a_folder_of_an_earlier_version_gets_a_master_key_and_keeps_it(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as folder:
        first = folder.secrets()
        old = dataclasses.asdict(first)
        del old["master_key"]
        (tmp_path / "secrets.json").write_text(json.dumps(old))
        made = folder.secrets()
    assert made == dataclasses.replace(first, master_key=made.master_key)
    assert read_master_keys(made.master_key) != read_master_keys(first.master_key)
    with open_data_dir(tmp_path) as folder:
        assert folder.secrets() == made


def test_two_folders_share_no_secret(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "a") as a, open_data_dir(tmp_path / "b") as b:
        assert set(dataclasses.astuple(a.secrets())) & set(dataclasses.astuple(b.secrets())) == {""}


def test_who_runs_is_known_while_it_runs(tmp_path: Path) -> None:
    assert read_running(tmp_path) is None
    with open_data_dir(tmp_path) as folder:
        with folder.announced(RUNNING):
            assert read_running(tmp_path) == RUNNING
        assert read_running(tmp_path) is None


def test_what_a_killed_process_left_is_not_believed(tmp_path: Path) -> None:
    with open_data_dir(tmp_path):
        pass
    (tmp_path / "running.json").write_text(json.dumps(dataclasses.asdict(RUNNING)))
    assert read_running(tmp_path) is None
    with open_data_dir(tmp_path) as folder:
        assert folder.left_running() == RUNNING


def test_a_file_in_the_folders_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    assert "can't be used" in refusal(tmp_path / "d")
