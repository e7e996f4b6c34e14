"""A command that is attended leaves nothing behind, whoever ends first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pytest_glia.attended import attend
from tests.living import alive, until


def attended(command: str, folder: Path, seconds: float = 30.0) -> tuple[int | None, str, str]:
    """Exit code, last words and log of a command."""
    ended = attend(command, folder, os.environ, seconds, folder / "log")
    return ended.code, ended.said, (folder / "log").read_text("utf-8")


def test_output_is_bounded(tmp_path: Path) -> None:
    """Of 20 MB that are printed the log has the first 4 MiB, and the end is told."""
    code, said, log = attended("yes 0123456 | head -c 20000000; echo; echo the end", tmp_path)
    assert code == 0
    assert said.endswith("the end\n")
    assert 4 << 20 <= len(log) < 5 << 20


def test_signal_is_told_as_shells_do(tmp_path: Path) -> None:
    """128 and its number."""
    assert attended("kill -9 $$", tmp_path)[0] == 128 + 9


def test_command_does_not_outlive_who_asked(tmp_path: Path) -> None:
    """When the process that attends a command is killed, the command and its children end."""
    asks = (
        "import os, pathlib, sys; from pytest_glia.attended import attend\n"
        "command = 'setsid sleep 600 & echo $! > pid.new; mv pid.new pid; wait'\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "attend(command, here, os.environ, 600, here / 'log')"
    )
    process = subprocess.Popen([sys.executable, "-c", asks, str(tmp_path)])
    until(lambda: (tmp_path / "pid").exists())
    process.kill()
    process.wait()
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid))
