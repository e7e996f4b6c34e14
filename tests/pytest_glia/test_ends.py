"""What has ended a search's work, or failed in it, is the same whenever the run goes on or is replayed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_glia.budget import Account, Budget, BudgetExhausted
from pytest_glia.ledger import Ledger
from pytest_glia.models import Message, Model, ModelFailed, Reply, Request
from pytest_glia.models.settings import ModelSettings, Price
from pytest_glia.models.threads import Threads
from tests.project import MakeProject, spec
from tests.rivals import costing, play
from tests.scripted_model import Says

FREE = ModelSettings("some", price=Price(0, 0))


class Fickle:
    """Fails each request but those that it has replies for."""

    name = "fickle"

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked = 0

    def complete(self, request: Request) -> Reply:
        self.asked += 1
        if self.replies:
            return Reply(self.replies.pop(0), (), 10, 5)
        raise ModelFailed("HTTP 401: expired; set the key", prompt_tokens=7)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def thread(ledger: Ledger, model: Model | None, tokens: float = 10_000) -> tuple[Model, Account]:
    """The one conversation of a run, as a new process has it, and its account."""
    account = Account(Budget(tokens=tokens))
    return Threads(FREE, model, ledger, account, "run").thread("1"), account


def said(text: str, most: int = 20) -> Request:
    """A request."""
    return Request((Message("user", text),), max_tokens=most)


def test_model_that_has_failed_is_not_asked_again(ledger: Ledger) -> None:
    """A run that goes on, or is replayed, ends where and why its model ended, though it would answer now."""
    first, before = thread(ledger, Fickle("a"))
    first.complete(said("a"))
    with pytest.raises(ModelFailed, match="expired"):
        first.complete(said("b"))
    healthy = Fickle("b")
    for model in (healthy, None):
        again, account = thread(ledger, model)
        assert again.complete(said("a")).text == "a"
        with pytest.raises(ModelFailed, match="HTTP 401: expired; set the key"):
            again.complete(said("b"))
        assert account.spent["tokens"] == before.spent["tokens"] == 22
    assert healthy.asked == 0


def test_refused_request_is_refused_again_and_a_smaller_one_is_not(ledger: Ledger) -> None:
    """Of the same budget; what is asked in its place is answered from the record."""
    for model in (Fickle("small"), None):
        asked, _ = thread(ledger, model, tokens=500)
        with pytest.raises(BudgetExhausted):
            asked.complete(said("large", most=1000))
        assert asked.complete(said("small")).text == "small"


def test_larger_budget_goes_on(ledger: Ledger) -> None:
    """Where a budget had ended a conversation, a larger one does not."""
    with pytest.raises(BudgetExhausted):
        thread(ledger, Fickle("a"), tokens=100)[0].complete(said("a", most=1000))
    assert thread(ledger, Fickle("a"))[0].complete(said("a", most=1000)).text == "a"


@pytest.mark.slow
def test_rival_that_its_model_has_left_is_replayed(tmp_path: Path) -> None:
    """Best-of-n whose key expires in mid-run: the replay needs no model, and comes to the same commits."""
    played = play(
        tmp_path / "rival",
        "best-of-n",
        lambda number, _: costing(7.0 - number) if number < 2 else Says(status=401, error="expired"),
    )
    assert "The search ended because" in played.ran.text, played.ran.out
    assert "expired" in played.ran.text
    again = played.project.command("replay", played.project.best().split("/")[2])
    assert again.code == 0, again.out
    assert len(played.prompts) == 3


# The designer's one candidate hangs the first time that it is run.
HANGS = """\
def cost(answer, seed):
    if answer() < 9 and not os.path.exists(os.environ["SEEN"]):
        open(os.environ["SEEN"], "w").close()
        time.sleep(600)
    return answer() + seed % 7 / 100


def test_cost(glia):
    assert glia.measure(cost) < 3
"""
ONE = """\
import os
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class One:
    def design(self, lab):
        lab.full({"candidate.py": b"def answer():\\n    return 2.0\\n"}, Hypothesis("two"), lab.start)
        if "DIE" in os.environ:
            os.kill(os.getpid(), 9)
        return Proposal(lab.best())


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"one": One()}
"""


@pytest.mark.slow
def test_replication_that_was_too_late_is_too_late_for_its_run(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """A run that goes on sees the failure that it has acted upon; another run gives the candidate time."""
    files = spec("def answer():\n    return 9.0\n", HANGS)
    project = make_project({**files, "conftest.py": ONE})
    search = ("--glia-optimize", "--glia-designer=one", "-o", "glia_timeout=2")
    seen = {"SEEN": str(tmp_path / "seen")}
    assert project.pytest(*search, **seen, DIE="yes").code == -signal.SIGKILL
    [tried] = project.branches("glia/")
    before = project.git("rev-parse", tried)
    assert os.path.exists(seen["SEEN"])
    ran = project.pytest(*search, **seen)
    assert "It goes on" in ran.text
    assert "the replication did not finish within 2 s" in ran.text
    assert (ran.code, project.git("rev-parse", tried)) == (1, before)
    assert project.command("replay", tried.split("/")[2]).code == 0
    other = project.pytest(*search, **seen)
    assert other.code == 0, other.out


TWO = """\
def cost(answer, seed):
    return answer() + seed % 7 / 100


def other(answer, seed):
    return answer() + seed % 5 / 100


def test_cost(glia):
    assert glia.measure(cost) < 3


def test_other(glia):
    assert glia.measure(other) < 3
"""
BOTH = """\
import pluggy
from pytest_glia.designers import Proposal
from pytest_glia.trials import Hypothesis


class Both:
    def design(self, lab):
        for cost in (2.0, 1.0):
            source = f"def answer():\\n    return {cost}\\n".encode()
            lab.full({"candidate.py": source}, Hypothesis(f"costs {cost}"), lab.start, race=False)


@pluggy.HookimplMarker("glia")
def glia_designers():
    return {"both": Both()}
"""


@pytest.mark.slow
def test_evaluation_that_the_budget_ended_half_way_is_paid_for_again(make_project: MakeProject) -> None:
    """A replay comes to the same note: what the first of two specs had cost counts, though neither is run."""
    files = spec("def answer():\n    return 9.0\n", TWO)
    project = make_project({**files, "conftest.py": BOTH})
    ran = project.pytest("--glia-optimize", "--glia-designer=both", "--glia-budget=47 sims, 100 s")
    assert "The search ended because the budget of 47 simulations is spent, but for" in ran.text, ran.out
    note = project.show(project.best(), "candidate.md")
    assert "spent 44 simulations" in note
    again = project.command("replay", project.best().split("/")[2])
    assert again.code == 0, again.out
