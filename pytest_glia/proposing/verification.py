"""Designs shown once more to meet their specs, on seeds that nobody who made them could know.

A plugin of a pytest run in a checkout of the base: it gives the same child in the same composed tree that a
search uses (`pytest_glia.evaluator`) the text of the candidate, and seeds under a secret drawn here. So the
specs, their fixtures and settings are the base's, and neither a designer nor a budget is needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from pytest_glia import seeds
from pytest_glia.budget import Account, Budget
from pytest_glia.candidate import fault
from pytest_glia.childprocess import EvaluatorFailed
from pytest_glia.evaluator import Evaluator
from pytest_glia.ledger import Ledger
from pytest_glia.merit import Evaluation
from pytest_glia.misuse import Misuse
from pytest_glia.optimize import Group, grouped, replay
from pytest_glia.payer import Payer
from pytest_glia.proposing import Refused
from pytest_glia.proposing.bundle import Handed
from pytest_glia.repository import Repository
from pytest_glia.sequential import confirmation_confidence, confirmation_seeds
from pytest_glia.settings import Settings
from pytest_glia.visible import visible


@dataclass(frozen=True)
class Verified:
    """A design that meets its specs on seeds drawn after it was fixed.

    Attributes:
        design: As it was handed over.
        repository: Around pytest's root directory.
        files: The texts of candidates and notes, by path relative to pytest's root directory.
        evaluation: What the specs have measured.
        reports: Of the specs.
        secret: Of the seeds, with the hash of the candidate's text (`pytest_glia.seeds.sealed`).
        content: That hash.
        sandbox: What the candidate was confined with.
    """

    design: Handed
    repository: Repository
    files: Mapping[str, bytes]
    evaluation: Evaluation
    reports: Sequence[pytest.TestReport]
    secret: bytes
    content: str
    sandbox: str


class Verification:
    """The plugin; after the run ``verified`` and ``refused`` say what has become of each design.

    Args:
        designs: In the repository already.
        base: The commit that is checked out.
    """

    def __init__(self, designs: Sequence[Handed], base: str) -> None:
        self._designs = designs
        self._base = base
        self._shown: list[tuple[Sequence[pytest.Item], Sequence[pytest.TestReport]]] = []
        self.verified: list[Verified] = []
        self.refused: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """In place of the tests that were collected: those that name a design's candidate, for the design."""
        if session.testsfailed:
            return None
        try:
            groups, _ = grouped(session.items)
            for design in self._designs:
                try:
                    self._verify(design, groups, session)
                except Refused as error:
                    self.refused.append(visible(str(error), line=True))
        except (Misuse, EvaluatorFailed) as error:
            raise pytest.UsageError(str(error)) from None
        # Only now: -x would end the run at the first design that fails.
        for items, reports in self._shown:
            replay(items, reports, session)
        return True

    def _verify(self, design: Handed, groups: Sequence[Group], session: pytest.Session) -> None:
        repository = Repository(session.config.rootpath)
        candidates, items = self._group(design, groups, repository)
        paths = design.checked(candidates, repository, self._base)
        settings = Settings.from_config(session.config)
        sources = {each.path: repository.read(design.commit, each.path) or b"" for each in candidates}
        exposed = partial(repository.read, self._base)
        for each in candidates:
            if wrong := fault(each, sources[each.path], settings.allow_imports, exposed):
                raise Refused(f"{design.branch}: {wrong}")
        content = "+".join(repository.blob(text) for text in sources.values())
        secret = secrets.token_bytes(32)
        confidence = confirmation_confidence(settings.confidence, 1)
        replications = confirmation_seeds(settings.replications, settings.confidence, 1)
        ledger = Ledger(session.config.rootpath)
        evaluator = Evaluator(
            *(session.config, settings, repository, ledger, Account(Budget()), candidates, self._base),
            *(tuple(item.nodeid for item in items), lambda text: None),
        )
        try:
            payer = Payer("", Account(Budget()))
            before = {path: repository.read(self._base, path) or text for path, text in sources.items()}
            rehearsal = evaluator.rehearse(before, secret)
            if rehearsal.problem:
                raise Refused(f"{design.branch} cannot be judged: {rehearsal.problem}")
            drawn = seeds.sealed(secret, content, replications, wide=rehearsal.apart)
            reports = evaluator.judge(sources, drawn, payer, confidence)
            # Other futures, in another world: what is recorded must not decide otherwise for them.
            probed = evaluator.look(sources, drawn, payer, world=secrets.token_bytes(32))
        finally:
            evaluator.close()
            ledger.close()
        self._shown.append((items, reports))
        evaluation = Evaluation.of(sources, drawn, reports)
        failed = list(dict.fromkeys(each.nodeid.rpartition("::")[2] for each in reports if each.failed))
        if failed:
            raise Refused(f"{design.branch} does not meet its specs on fresh seeds: {', '.join(failed)}")
        if not evaluation.checks:
            raise Refused(f"{design.branch} was not measured: its specs made no comparison")
        if probed.errors:
            raise Refused(f"{design.branch} does not pass the audit: {next(iter(probed.errors.values()))}")
        files = {path: repository.read(design.commit, path) or b"" for path in paths}
        line = settings.sandbox_line()
        self.verified.append(Verified(design, repository, files, evaluation, reports, secret, content, line))

    def _group(self, design: Handed, groups: Sequence[Group], repository: Repository) -> Group:
        """The candidates that a design is of, and their specs, as the base has them."""
        changed = {change.path for change in design.changes}
        for candidates, items in groups:
            name = "+".join(dict.fromkeys(each.name for each in candidates))
            if name == design.name and changed & {repository.inside(each.path) for each in candidates}:
                return candidates, items
        raise Refused(
            f"{design.branch} changes no candidate called {design.name} of the specs that were selected "
            f"(it changes {', '.join(map(repr, sorted(changed)[:5])) or 'nothing'})"
        )
