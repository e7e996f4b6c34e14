"""The seams of the plugin: pluggy hooks of project ``glia``, and the protocols of what they give.

A domain (such as ``sim``) or a user's ``conftest.py`` implements a hook with
``pluggy.HookimplMarker("glia")``. It hands over plain objects that satisfy the protocols below, so it
never needs to import this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from pytest_glia.designers import Designer

hookspec = pluggy.HookspecMarker("glia")


class Mechanism(Protocol):
    """One idea for a better algorithm: a causal claim, what calls for it, and a source edit.

    Attributes:
        name: Short and unique in its domain: ``"hold requests without room"``.
        claim: One sentence: what the edit changes and why that should help.
        predicts: The metrics that the claim says will fall (``-1``) or rise (``+1``); names that the
            candidate's replications report.
        numbers: Each constant that `apply` writes, with ``(low, high)``, both inclusive. Two ints make
            it an integer; the search is logarithmic where ``low > 0``.
        defaults: The value that each number starts from.
    """

    @property
    def name(self) -> str: ...
    @property
    def claim(self) -> str: ...
    @property
    def predicts(self) -> Mapping[str, int]: ...
    @property
    def numbers(self) -> Mapping[str, tuple[float, float]]: ...
    @property
    def defaults(self) -> Mapping[str, float]: ...

    def called_for(self, evidence: Mapping[str, float]) -> str | None:
        """Why the evidence calls for this idea, in words with figures; None if it does not.

        `evidence` is the mean of every metric that the current candidate's replications reported.
        """
        ...

    def apply(self, source: str, numbers: Mapping[str, float]) -> str | None:
        """The candidate's source with the idea worked in; None if it has no place for it."""
        ...


class Recorder(Protocol):
    """Takes the place of a candidate's object in a replication and notes what it decides.

    Attributes:
        policy: What the replication gets instead of the object.
    """

    @property
    def policy(self) -> Any: ...

    def log(self) -> bytes:
        """What was decided so far, call by call."""
        ...


class Recording(Protocol):
    """Recorded decisions, and an object that gives them again.

    Attributes:
        policy: What a replication gets in place of the candidate's object.
        calls: How many calls were recorded.
        asked: How many decisions were asked of `policy` so far.
        unused: Whether decisions are left that were not asked for.
    """

    @property
    def policy(self) -> Any: ...
    @property
    def calls(self) -> int: ...
    @property
    def asked(self) -> int: ...
    @property
    def unused(self) -> bool: ...

    def differs(self, other: bytes, until: int) -> int | None:
        """The first call before `until` (from 0) in which another log decides otherwise, or None."""
        ...


class Audit(Protocol):
    """What a domain knows of its candidates' decisions, so that they need not be believed anything else.

    Attributes:
        name: Of the domain.
        knobs: What of its runs an experiment may change by a factor, each with a word on it; perhaps none.

    An audit may have ``metrics``, too: what the metrics of its runs mean, in words for whoever designs. One
    that is `Apart`, too, keeps a design that is confirmed out of the process of its runs.
    """

    @property
    def name(self) -> str: ...
    @property
    def knobs(self) -> Mapping[str, str]: ...

    def record(self, candidate: Any) -> Recorder | None:
        """A recorder around a candidate's object; None if it is none of the domain's."""
        ...

    def recording(self, log: bytes) -> Recording:
        """What a recorder has noted; of empty bytes one that has nothing and raises when it is asked.

        Raises ValueError if it is not a log: it comes from a process that is not trusted.
        """
        ...

    def varied(self, key: int) -> AbstractContextManager[None]:
        """A context in which replications of the domain meet another draw of their world than the seed's."""
        ...

    def future_changed(
        self, logs: Sequence[tuple[Recorder, bytes]], call: int, key: int
    ) -> AbstractContextManager[None]:
        """A context in which a replication's world is the same up to a call, in all that a candidate may see.

        After it, it is another one. `logs` has the recorders of this replication with what was recorded
        before; `call` is the ordinal, from 0, of a call of the first.
        """
        ...

    def scenario(self, changes: Mapping[str, float]) -> AbstractContextManager[None]:
        """A context in which replications of the domain run with some of `knobs` changed by factors."""
        ...


class Apart(Protocol):
    """Asks a candidate's object in another process for its decisions, by bytes that it alone understands."""

    def answering(self, policy: Any) -> Callable[[bytes], bytes]:
        """In the candidate's process: what answers a question to its object with the object's decision."""
        ...

    def asking(self, ask: Callable[[bytes], bytes]) -> Any:
        """In a trusted process: what a spec gets for the object; it asks, and believes only decisions.

        `ask` raises if there is no answer.
        """
        ...


class ApartAudit(Audit, Apart, Protocol):
    """An audit whose candidates can be asked in a process that has nothing of the run but the questions.

    The decisions must be those that the candidate makes where it is recorded.
    """


class RealTestbed(Apart, Protocol):
    """A testbed of real hardware: its runs take real time, and no two of them are alike.

    Called with a cluster's settings it gives, as any testbed, what a spec runs on; what it cannot honour
    skips the test. A candidate's objects stay in their own confined process: what stands for each in the spec
    asks there for every decision, by bytes that only the domain understands.

    Attributes:
        busy: What a run raises while another one of this machine has the hardware. It must not wait for that
            itself: the other may be waiting for its turn to measure, which this one has. It is tried again.
    """

    @property
    def busy(self) -> type[Exception]: ...

    def __call__(self, **cluster: Any) -> Any: ...

    def close(self) -> None:
        """End what it has started; called at the end of the session."""
        ...


@hookspec
def glia_audits() -> Audit:  # type: ignore[empty-body]
    """How the domain records and replays what its candidates decide.

    With it the metrics of a replication always come from replaying its decisions in a process that has never
    loaded the candidate, and a search audits a design before it confirms it.
    """


@hookspec
def glia_mechanisms(path: str, entry: str, source: str) -> Sequence[Mechanism]:  # type: ignore[empty-body]
    """Ideas that a domain has for the candidate `entry` in the file `path` with text `source`.

    Return an empty sequence if the candidate is not one of the domain's. Example::

        @pluggy.HookimplMarker("glia")
        def glia_mechanisms(path, entry, source):
            return ROUTING if "def route(" in source else []
    """


@hookspec(firstresult=True)
def glia_testbed(name: str, file: Path) -> Callable[..., Any] | RealTestbed | str | None:
    """What the fixture ``testbed`` gives for ``--glia-testbed NAME``; a string is a reason to skip.

    Return None if the domain does not have a testbed of that name; raise ValueError if it is set up wrongly.
    `file` is that of the setting ``glia_testbed_file``: what hardware there is, for a testbed that needs to
    know (an implementation may leave the argument out).
    """


@hookspec
def glia_designers() -> Mapping[str, Designer]:  # type: ignore[empty-body]
    """Designers by the name that ``--glia-designer`` takes."""
