"""``python -m pytest_glia verify RUN``: every claim of a delivered design again, on seeds drawn afresh."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_glia.delivered import KEY, Ablated, Delivered
from pytest_glia.designers import Claim, Finding, Retested, again
from pytest_glia.ledger import Ledger
from pytest_glia.misuse import Misuse
from pytest_glia.repeating import copied, of_a_run, recorded, repeated
from pytest_glia.repository import Repository
from pytest_glia.visible import visible

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# The plugin, and a budget that limits nothing: what is verified was paid for once.
_OPTIONS = (
    *("-p", "pytest_glia.designers.again", f"--glia-designer={again.NAME}"),
    "--glia-budget=1000000000 sims",
)

# As the design note has it: what does not work at all says little of the idea.
_WORDS = {"worse": "shown", "broken": "not shown", "not shown": "not shown"}


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    of_a_run(
        subparsers,
        "verify",
        "test every claim of a delivered design again",
        "Test what a run of --glia-optimize has delivered on seeds drawn afresh, in a temporary copy of the "
        "repository: the specs, the design without each claim, and each finding. Ends with 0 if the specs "
        "pass and what was shown is shown again.",
        run,
    )


def run(args: argparse.Namespace) -> int:
    """0 if specs and claims hold again, 1 if not; raises `Misuse` if there is nothing to verify."""
    with recorded(args.root.resolve()) as (repository, ledger):
        begun, command = ledger.begun(args.name)
        text = ledger.recall(begun.id, KEY)
        if text is None:
            raise Misuse(
                f"the run {begun.id} has delivered no design, so there is nothing to verify: it was ended "
                "early, or found nothing better than its start"
            )
        with copied(repository, begun.base, without="refs/heads/glia/") as copy:
            file = copy.parent / "delivered.json"
            file.write_text(text, "utf-8")
            ended = repeated(copy, command, *_OPTIONS, **{again.DELIVERED: str(file)})
            found = _found(copy / repository.prefix)
    if found is None:
        return _not_evaluated(ended)
    secret, now = found
    print(f"The design of run {begun.id} again, on seeds under the secret {secret}:\n")
    return _told(Delivered.from_json(text), now)


def _found(root: Path) -> tuple[str, Delivered] | None:
    """Of the verification its secret, and what it has shown; None if it has delivered nothing."""
    best = Repository(root).branches("/best")
    if not best:
        return None
    [branch] = best
    ledger = Ledger(root)
    try:
        begun, _ = ledger.begun(branch.split("/")[-2])
        text = ledger.recall(begun.id, KEY)
    finally:
        ledger.close()
    return None if text is None else (begun.secret.hex(), Delivered.from_json(text))


def _not_evaluated(ended: subprocess.CompletedProcess[str]) -> int:
    """Nothing was delivered: the audit has refused the design, or it could not be run at all."""
    sys.stdout.write(visible(ended.stdout))
    if ended.returncode > 1:
        raise Misuse(f"the specs could not be run again: pytest ended with exit code {ended.returncode}")
    print("not as before: the design was not confirmed again")
    return 1


def _told(before: Delivered, now: Delivered) -> int:
    """Say of specs, claims and findings whether they are as before; 0 if what was shown is shown again."""
    print(f"{now.table}\n")
    holds = now.passed
    passed = {True: "the specs pass", False: "the specs do not pass"}
    print(f"{_same(before.passed, now.passed)}: {passed[now.passed]}")
    for claim in before.claims:
        then, again = before.ablated.get(claim.name), now.ablated.get(claim.name)
        print(_claim(claim, then, again))
        holds &= then is None or then.result != "worse" or (again is not None and again.result == "worse")
    for finding in before.findings:
        tested, retested = before.retested.get(finding.text), now.retested.get(finding.text)
        print(_finding(finding, retested))
        was_shown = tested is not None and tested.verdict == "as before"
        holds &= not was_shown or (retested is not None and retested.verdict == "as before")
    return 0 if holds else 1


def _claim(claim: Claim, then: Ablated | None, now: Ablated | None) -> str:
    head = f"the claim {claim.name!r}"
    if not claim.experiment:
        return f"unverified: {head}: no experiment of the run shows it"
    if now is None:
        return f"unverified: {head}: the design was not run to the end without it"
    word = _WORDS.get(now.result, "refuted")
    shown = f"{head}: {word}; without it loss {now.change}"
    if then is None:
        return f"unverified: {shown}; the run had not come to test it"
    was = _WORDS.get(then.result, "refuted")
    changed = "" if word == was else f" (it was {was}, with {then.change})"
    return "\n".join([f"{_same(was, word)}: {shown}{changed}", *_predictions(claim, now)])


def _predictions(claim: Claim, now: Ablated) -> list[str]:
    """What each metric was predicted to do for the idea, and what it does."""
    lines = []
    for metric, (without, design) in now.metrics.items():
        sign = claim.predicts[metric]
        by = f" by {100 * claim.sizes[metric]:.3g} %" if metric in claim.sizes else ""
        held = "as" if (design - without) * sign > 0 else "not as"
        predicted = f"{'falls' if sign < 0 else 'rises'}{by}"
        lines.append(f"  {metric} {predicted}, it said: {without:.4g} to {design:.4g}, {held} predicted")
    return lines


def _finding(finding: Finding, now: Retested | None) -> str:
    now = now or Retested("it was not tested to the end", "unverified")
    return f"{now.verdict}: the finding {finding.text!r}: {now.text} (in the run: {finding.measured})"


def _same(then: object, now: object) -> str:
    return "as before" if then == now else "not as before"
