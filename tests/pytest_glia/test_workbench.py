"""Where an analysis runs: it gets tables, gives figures, and reaches nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pytest_glia import workbench
from pytest_glia.sandbox import unavailable
from pytest_glia.tables import keep_tables, tables_of
from pytest_glia.workbench import Analysis, analyse
from tests.pytest_glia.test_tables import Result


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tables of two runs."""
    folder = tmp_path_factory.mktemp("tables")
    for number in (1, 2):
        columns = {"valve": np.array([0, 1, 1]), "leak": np.array([1.0, 2.0, 3.0]) * number}
        keep_tables(folder / f"{number}.npz", tables_of(Result({"requests": columns})))
    return [folder / "1.npz", folder / "2.npz"]


def made(code: str, files: Sequence[Path] = (), *, confined: bool = False) -> Analysis:
    """What the code makes of these tables."""
    return analyse(code, files, "what the candidate said", confined=confined)


CODE = """\
leaks = tables["requests"].groupby("valve").leak.mean()
print(leaks.to_dict(), len(runs), printed)
findings["least"] = leaks.idxmin()
findings["second"] = runs[1]["requests"].leak.sum()
"""


@pytest.mark.parametrize("confined", [False, True])
def test_tables_come_as_data_frames(files: list[Path], confined: bool) -> None:
    """Those of the first run as `tables`, of each in `runs`; figures come back, and what was printed."""
    if confined and (reason := unavailable()):
        pytest.skip(reason)
    analysis = made(CODE, files, confined=confined)
    assert analysis == Analysis("{0: 1.0, 1: 2.5} 2 what the candidate said\n", {"least": 0, "second": 12})
    assert analysis.describe().endswith("said\nfindings: least = 0, second = 12")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        ("tables['cars']", "KeyError: 'cars' (line 1)"),
        ("def (:", "SyntaxError: invalid syntax (analysis.py, line 1)"),
        ("findings['who'] = 'me'", "TypeError: findings['who'] is 'me'"),
        ("findings = 3", "TypeError: 'int' object is not iterable"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 1)"),
        ("import os; os._exit(0)", "it ended without a word"),
    ],
)
def test_an_error_is_told_with_its_line(code: str, error: str) -> None:
    """Whatever ends it early, and then it has found nothing."""
    analysis = made(code)
    assert analysis.error.startswith(error)
    assert analysis.findings == {}


def test_what_was_printed_before_an_error_is_kept() -> None:
    """It helps to find the error; of very much only the beginning is shown, without control characters."""
    analysis = made("print('so far\\x1b[2J')\nprint('x' * 100_000)\n1 / 0")
    assert analysis.printed.startswith("so far\\x1b[2J\n")
    assert len(analysis.printed) <= 8_000
    assert "error: ZeroDivisionError" in analysis.describe()


def test_nothing_is_said_of_nothing() -> None:
    """In words."""
    assert made("").describe() == "(it printed nothing and left no findings)"


def test_what_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With all that it started, when its time is over."""
    monkeypatch.setattr(workbench, "SECONDS", 2)
    file = tmp_path / "pid"
    analysis = made(f"import os\nopen({str(file)!r}, 'w').write(str(os.getpid()))\nwhile True: pass")
    assert analysis == Analysis("", {}, "it did not end within 2 s and was killed")
    state = Path(f"/proc/{file.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.slow
@pytest.mark.skipif(unavailable() is not None, reason="nothing can be confined here")
@pytest.mark.parametrize(
    "code",
    [
        "open({secret!r}).read()",
        "open({new!r}, 'w')",
        "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "import sim",
    ],
    ids=["read", "write", "connect", "start", "a domain's baselines"],
)
def test_it_reaches_nothing_else(code: str, tmp_path: Path) -> None:
    """No file, no network, no program, nothing of a domain's: an error tells it so."""
    secret = tmp_path / "secret"
    secret.write_text("42")
    analysis = made(code.format(secret=str(secret), new=str(tmp_path / "new"), port=9), confined=True)
    assert analysis.error.startswith(
        ("PermissionError", "ModuleNotFoundError", "ImportError", "BlockingIOError")
    )
    assert list(tmp_path.iterdir()) == [secret]


@pytest.mark.parametrize("confined", [False, True])
def test_its_environment_is_empty(confined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it prints goes to the model's server, so no variable of the user's is there to be printed."""
    if confined and (reason := unavailable()):
        pytest.skip(reason)
    monkeypatch.setenv("WHERE_I_LIVE", "paris")
    analysis = made("import os\nprint(sorted(os.environ))", confined=confined)
    assert (analysis.printed, analysis.error) == ("[]\n", "")
    assert os.environ["WHERE_I_LIVE"] == "paris"
