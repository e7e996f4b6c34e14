"""Secrets of the environment: which are known as such, and that a confined process has none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_glia import sandbox
from tests.confined import ROOT

pytestmark = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox here: {sandbox.unavailable()}"
)


SECRETS = {
    **{"OPENAI_API_KEY": "hide-1", "PGPASSWORD": "hide-2", "MYSQL_PWD": "hide-3", "GITHUB_PAT": "hide-4"},
    **{"SSH_AUTH_SOCK": "/hide-5", "SENTRY_DSN": "hide-6", "aws_secret_access_key": "hide-7"},
    "DATABASE": "postgres://ada:hide-8@db/x",
    "EXTRA": "ghp_hide9hide9hide9hide9hide9hide9hide9",
    "ARGS": "--with sk-proj-hide10hide10hide10",
    "STATE": "eyJhide11hide11.eyJhide11hide11.hide11",
    "CLOUD": "AKIAHIDE12HIDE12HIDE",
}
KEPT = {
    **{"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PWD": "/show", "KEYBOARD": "de"},
    **{
        "MIRROR": "https://example.org:443/simple",
        "MONKEY": "show",
        "TASK": "risk-aversion-parameter-is-shown",
    },
}


@pytest.mark.parametrize(("name", "value"), SECRETS.items())
def test_secret_is_known_by_name_or_value(name: str, value: str) -> None:
    """Words for keys in the name, or a value that has the shape of a token or a URL with a password."""
    assert sandbox.is_secret(name, value)


@pytest.mark.parametrize(("name", "value"), KEPT.items())
def test_other_variables_stay(name: str, value: str) -> None:
    """A spec may need them."""
    assert not sandbox.is_secret(name, value)


ENVIRONMENT = """\
import ctypes, os, sys
from pathlib import Path
from pytest_glia import sandbox

os.environ["LATE_TOKEN"] = "hide-late"
os.environ["OPENAI_API_KEY"] = "hide-changed"
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
libc.setenv(b"C_TOKEN", b"hide-c", 1)
fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])
names = [*os.environ, "C_TOKEN"]
confinement = sandbox.Confinement.of_project(Path.cwd(), seconds=60, workers=1)
if sys.argv[1:]:
    sandbox.confine(confinement)
print(dict(os.environ))
print([libc.getenv(name.encode()) for name in names])
print(ctypes.string_at(start, end - start))
"""


def test_secrets_are_gone_from_the_process() -> None:
    """From os.environ, from C's getenv, and from the memory that the kernel has put them into."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", ENVIRONMENT, *arguments],
            cwd=ROOT,
            env={**SECRETS, **KEPT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run().lower().count("hide") > 3 * len(SECRETS)
    confined = run("confined")
    assert "hide" not in confined.lower()
    assert confined.count("risk-aversion-parameter-is-shown") == 3
