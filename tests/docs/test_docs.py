"""The documentation runs: its files are written, its console sessions are executed and compared."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_glia.models.mailbox import Mailbox

ROOT = Path(__file__).parents[2]
FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n\$ (?:python -m )?(pytest[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed project of the files that the pages show, the later pages' conftest left out."""
    for name, text in FILE.findall((ROOT / "docs/specs.md").read_text("utf-8")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    return tmp_path


def run(project: Path, command: str) -> str:
    """What a console command prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def commit(project: Path) -> None:
    """Put all files of a project into a new repository."""
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *arguments], cwd=project, check=True)


def check(shown: str, printed: str) -> None:
    """The lines of a console block occur in the output, in order; ``...`` stands for anything between."""
    lines = [line.rstrip() for line in printed.splitlines()]
    for expected in filter(lambda line: line.strip() != "...", shown.splitlines()):
        while lines and not fnmatch.fnmatchcase(lines[0], f"{expected.rstrip().replace('[', '[[]')}*"):
            lines.pop(0)
        assert lines, f"{expected!r} was not printed:\n{printed}"


@pytest.mark.slow
def test_writing_specs(project: Path) -> None:
    """docs/specs.md: its specs print what it shows, the message of the one that fails included."""
    sessions = CONSOLE.findall((ROOT / "docs/specs.md").read_text("utf-8"))
    assert [command.split()[1] for command, _ in sessions] == ["specs", "speed"]
    for command, shown in sessions:
        printed = run(project, command)
        for _ in range(2):  # a machine that is noisy just then shows nothing that is timed, as it should be
            noisy = "not shown  " in printed and "(noise " in printed
            if noisy or "a call that does nothing takes" in printed:
                printed = run(project, command)
        check(shown, printed)


LIAR = """\
class Bins(int):
    def __truediv__(self, other):
        return 1.0

"""
NOTHING_PACKED = {
    "a number that divides as it likes": LIAR + "def pack(items):\n    return Bins(1)\n",
    "other items": "def pack(items):\n    items[:] = [1e9]\n    return [0]\n",
    "one bin for all": "def pack(items):\n    return [0] * len(items)\n",
    "one bin of a lying kind": LIAR + "def pack(items):\n    return [Bins(0)] * len(items)\n",
    "too few": "def pack(items):\n    return [0]\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", NOTHING_PACKED)
def test_first_spec_is_not_passed_with_nothing_packed(project: Path, how: str) -> None:
    """docs/specs.md: a candidate that does not pack fails both tests, whatever it answers."""
    (project / "candidates/packer.py").write_text(NOTHING_PACKED[how], "utf-8")
    check("*2 failed*", run(project, "pytest specs"))


@pytest.mark.slow
def test_designing(project: Path) -> None:
    """docs/designing.md: its mechanism makes the spec of docs/specs.md pass, and that can be verified."""
    text = (ROOT / "docs/designing.md").read_text("utf-8")
    for name, content in FILE.findall(text):
        (project / name).write_text(content, "utf-8")
    commit(project)
    [*_, (command, shown)] = CONSOLE.findall(text)
    check(shown, run(project, command))
    listed = subprocess.run(["git", "branch"], cwd=project, capture_output=True, text=True, check=True).stdout
    [name] = re.findall(r"glia/packer/(\S+)/best", listed)
    commands = re.findall(r"^```console\n\$ python -m ([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [command.split()[1] for command, _ in commands] == ["verify", "replay", "prompt"]
    for command, shown in commands:
        check(shown, run(project, command.replace("RUN", name)))


@pytest.mark.slow
def test_several_objectives(project: Path) -> None:
    """docs/designing.md: a second objective leaves a choice, which the note of the design tells of."""
    text = (ROOT / "docs/designing.md").read_text("utf-8")
    for name, content in FILE.findall(text):
        (project / name).write_text(content, "utf-8")
    section = text.partition("## Several objectives\n")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    (project / "specs/test_reach.py").write_text(blocks["python"], "utf-8")
    commit(project)
    [(command, shown)] = CONSOLE.findall(section)
    check(shown, run(project, command))
    listed = subprocess.run(["git", "branch"], cwd=project, capture_output=True, text=True, check=True).stdout
    [best] = re.findall(r"glia/packer/\S+/best", listed)
    shows = ["git", "show", f"{best}:candidates/packer.md"]
    check(blocks["markdown"], subprocess.run(shows, cwd=project, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_comparing(project: Path) -> None:
    """docs/comparing.md: two runs of a designer on the specs of docs/specs.md leave what it lists."""
    for name, content in FILE.findall((ROOT / "docs/designing.md").read_text("utf-8")):
        (project / name).write_text(content, "utf-8")
    commit(project)
    text = (ROOT / "docs/comparing.md").read_text("utf-8")
    [(command, shown)] = CONSOLE.findall(text)
    check(shown, run(project, command))
    for name in ("compare.md", "best-so-far-simulations.svg", "confirmed.svg", "compare.json", "runs"):
        assert (project / "compared" / name).exists()


ELSEWHERE = (ROOT / "docs/agents-elsewhere.md").read_text("utf-8")


@pytest.mark.slow
def test_agents_elsewhere(project: Path) -> None:
    """docs/agents-elsewhere.md: its first command meets the spec, and so does its MCP client."""
    settings, *_ = TOML.findall(ELSEWHERE)
    (project / "pytest.ini").unlink()
    (project / "pyproject.toml").write_text(settings, "utf-8")
    [(name, client)] = FILE.findall(ELSEWHERE)
    (project / name).write_text(client, "utf-8")
    commit(project)
    [(command, shown)] = CONSOLE.findall(ELSEWHERE)
    check(shown, run(project, command))
    [shown] = re.findall(rf"^```console\n\$ python {name}\n(.*?)^```$", ELSEWHERE, re.MULTILINE | re.DOTALL)
    check(shown, run(project, name.removesuffix(".py")))


MODELS = (ROOT / "docs/models.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("settings", TOML.findall(MODELS + ELSEWHERE))
def test_settings_of_models_and_agents(settings: str, project: Path) -> None:
    """docs/models.md, docs/agents-elsewhere.md: each of their configurations is one."""
    (project / "pytest.ini").unlink()
    (project / "pyproject.toml").write_text(settings, "utf-8")
    printed = run(project, "pytest specs --collect-only --strict-config --glia-optimize")
    assert "2 tests collected" in printed, printed


@pytest.mark.slow
def test_models(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """docs/models.md: a model without a limit is refused; a reply from a mailbox meets the spec."""
    for name, content in FILE.findall(MODELS):
        (project / name).write_text(content, "utf-8")
    [reply] = re.findall(r"^```python\n(\"\"\".*?)^```$", MODELS, re.MULTILINE | re.DOTALL)
    mail = tmp_path_factory.mktemp("mail")
    (mail / "0001.reply.md").write_text(reply, "utf-8")
    with Mailbox(mail, 0, print) as mailbox:
        (project / "pytest.ini").write_text(f"[pytest]\nglia_base_url = {mailbox.url}\n", "utf-8")
        commit(project)
        for command, shown in CONSOLE.findall(MODELS):
            check(shown, run(project, command))
    assert "Pack into fewer bins." in (mail / "0001.request.md").read_text("utf-8")


@pytest.mark.slow
def test_reports(project: Path) -> None:
    """docs/ci.md: the command leaves the files of its table, and the data has the names of the other."""
    text = (ROOT / "docs/ci.md").read_text("utf-8")
    for name, content in FILE.findall((ROOT / "docs/designing.md").read_text("utf-8")):
        (project / name).write_text(content, "utf-8")
    commit(project)
    [(command, shown)] = CONSOLE.findall(text)
    check(shown, run(project, command))
    _, files, names, *_ = re.split(r"^\|---.*\n", text, flags=re.MULTILINE)
    left = {each.name for each in (project / "report").iterdir()}
    assert left == set(re.findall(r"^\| `([^`]+)`", files.partition("\n\n")[0], re.MULTILINE))
    data = json.loads((project / "report/glia.json").read_text("utf-8"))
    rows = names.partition("\n\n")[0].splitlines()
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert told | {"schema"} == {*data, *data["designs"][0], "checks"}


def test_trust(project: Path) -> None:
    """docs/trust.md: a candidate that reads its caller's frame fails its spec with the sentence shown."""
    text = (ROOT / "docs/trust.md").read_text("utf-8")
    [(name, content)] = FILE.findall(text)
    (project / name).write_text(content, "utf-8")
    [(command, shown)] = CONSOLE.findall(text)
    check(shown, run(project, command))
