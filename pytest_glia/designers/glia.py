"""Glia's way of working with a language model: contexts in which a Researcher works under a Supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread

from pytest_glia.agents.researcher import Researcher
from pytest_glia.agents.supervisor import Supervisor
from pytest_glia.agents.toolbox import Part, signs, sizes
from pytest_glia.budget import BudgetExhausted
from pytest_glia.designers import Claim, Proposal, Rejected
from pytest_glia.lab import Lab
from pytest_glia.models import ModelFailed
from pytest_glia.playground import Playground
from pytest_glia.trials import Trial

_REMARKS = 12
"""Turns of a Researcher after which its context ends."""

_IDLE = 3
"""Turns in a row in which nothing is said or done, after which it ends, too."""

_FRUITLESS = 3
"""Contexts in a row that end without having tried a candidate, after which no further one is begun."""


@dataclass(frozen=True)
class Ended:
    """A context that has ended: what was done in it, the parts of its design, and why it ended."""

    playground: Playground
    parts: tuple[Part, ...]
    reason: str

    @property
    def tried(self) -> bool:
        """Whether it has tried a candidate at all."""
        return bool(self.playground.lab.trials)


class GliaDesigner:
    """SCG, MCG-Seq or MCG-Par, as ``--glia-contexts`` says; the best candidate of all contexts is kept."""

    uses_model = True

    def design(self, lab: Lab) -> Proposal:
        """Work until the specs are met on the development seeds, or the budget is spent."""
        contexts = lab.settings.contexts
        ended = _one_after_another(lab) if contexts == "seq" else _side_by_side(lab, int(contexts))
        # Not as they came, which is another order each time.
        lab.trials[:] = [trial for each in ended for trial in each.playground.lab.trials]
        return proposal(lab, ended)


def _side_by_side(lab: Lab, number: int) -> list[Ended]:
    """So many contexts at once, in threads that end with this process: Ctrl-C waits for no model."""
    if number == 1:
        return [_context(lab.context(1, lab.account), "")]
    accounts = [lab.account.part(number) for _ in range(number)]
    futures = []
    for place, account in enumerate(accounts, start=1):
        future = Future[Ended]()
        futures.append(future)
        Thread(target=_settle, args=(future, lab.context(place, account)), daemon=True).start()
    ended: list[Ended] = []
    failed: list[ModelFailed] = []
    # All of them, whatever becomes of one: what the others have found was paid for.
    for future in futures:
        try:
            ended.append(future.result())
        except ModelFailed as error:
            failed.append(error)
    if not ended:
        raise failed[0]
    for each in failed:
        lab.say(f"A context ended before it had tried anything: {each}.")
    return ended


def _settle(future: Future[Ended], lab: Lab) -> None:
    """Have a future come to what becomes of a context."""
    try:
        future.set_result(_context(lab, ""))
    except BaseException as error:
        future.set_exception(error)


def _one_after_another(lab: Lab) -> list[Ended]:
    """Fresh contexts until one meets the specs or the budget is spent."""
    ended: list[Ended] = []
    while True:
        handed_over = (
            "\n\n".join(each.playground.notebook() for each in ended) if lab.settings.hand_over else ""
        )
        ended.append(_context(lab.context(len(ended) + 1, lab.account), handed_over))
        fruitless = not any(each.tried for each in ended[-_FRUITLESS:]) and len(ended) >= _FRUITLESS
        if ended[-1].playground.best.met() or ended[-1].reason.startswith("the budget") or fruitless:
            return ended


def _context(lab: Lab, handed_over: str) -> Ended:
    """One context, from its first word to its end."""
    assert lab.models is not None
    model = lab.models.thread(lab.name)
    playground = Playground(lab, lab.name)
    researcher = Researcher(playground, model, lab.models.settings, handed_over)
    supervisor = Supervisor(lab.statement, model, lab.models.settings)
    reason, idle = f"it took {_REMARKS} turns", 0
    try:
        for _ in range(_REMARKS):
            idle = 0 if researcher.turn() else idle + 1
            if idle == _IDLE:
                reason = (
                    f"in {idle} turns the Researcher said nothing, and asked for nothing that can be done"
                )
                break
            if researcher.concluded is not None:
                reason = "the Researcher concluded"
                break
            remark = supervisor.remark("\n\n".join(researcher.heard))
            researcher.heard.clear()
            lab.say(f"Supervisor: {remark.text}")
            if remark.ends:
                reason = f"the Supervisor ended it: {remark.text}"
                break
            researcher.hear(remark.text)
    except (BudgetExhausted, ModelFailed) as error:
        if isinstance(error, ModelFailed) and not lab.trials and not playground.experiments:
            # Nothing was begun: what only the user can mend, such as a wrong key, is told.
            raise
        reason = str(error).strip()
    lab.say(f"Context {lab.name} ended: {reason}.")
    return Ended(playground, tuple(researcher.concluded or ()), reason)


def proposal(lab: Lab, ended: list[Ended]) -> Proposal:
    """The best candidate of all contexts with the claims of its own."""
    best = min(ended, key=lambda each: (not each.playground.best.met(), lab.aim.loss(each.playground.best)))
    found = best.playground.best
    if found is lab.start or dict(found.sources) == dict(lab.start.sources):
        found = lab.start
    reasons = "; ".join(f"context {each.playground.name}: {each.reason}" for each in ended)
    return Proposal(
        found,
        [] if found is lab.start else _claims(best, lab.start.sources),
        [_rejected(each) for each in lab.trials if each.result != "better" and each.evaluation is not found],
        remark=f"How the contexts ended: {reasons}.",
        findings=best.playground.findings(),
    )


def _claims(context: Ended, start: Mapping[str, bytes]) -> list[Claim]:
    """What the Researcher concluded; without that, the whole design is one claim."""
    playground = context.playground
    if not context.parts:
        kept = [each for each in playground.lab.trials if each.result == "better"]
        [*_, trial] = [each for each in playground.lab.trials if each.evaluation is playground.best]
        return [Claim.whole(trial, " ".join(each.hypothesis.text for each in kept), start)]
    return [
        Claim(
            part.name,
            part.text,
            part.reason,
            signs(part.predicts),
            {},
            playground.edited(part.edits, playground.best.sources),
            experiment=part.experiment,
            shown=part.shown,
            sizes=sizes(part.predicts),
        )
        for part in context.parts
    ]


def _rejected(trial: Trial) -> Rejected:
    hypothesis = trial.hypothesis
    return Rejected(
        hypothesis.name,
        hypothesis.text,
        hypothesis.reason,
        hypothesis.predicts,
        trial.change,
        {"not shown": "not shown to help", "equivalent": "shown to change nothing"}.get(
            trial.result, "refuted" if trial.result == "worse" else trial.result
        ),
    )
