"""Routing mechanisms: each edit gives an ordinary router that works, and only evidence calls for it."""

import ast
from collections.abc import Iterator
from typing import Any

import pytest

from sim import Cluster, Workload, glia, workloads
from sim.mechanisms import Mechanism
from sim.mechanisms.routing import routing_mechanisms

# As the quickstart's router is before it is designed.
QUICKSTART = '''"""The request router under design: which request goes to which replica, and when."""


class Router:
    """Sends each request at once to the replica with the fewest requests."""

    def route(self, queue, replicas, now):
        """Pairs of a request and its replica; what is left out stays in the queue."""
        for request in queue:
            yield request, min(replicas, key=lambda replica: replica.waiting + replica.running)
'''
METHOD_KEY = '''# Ours since 2023.
"""A router → with a method as its key."""
from __future__ import annotations

import math  # kept

SCALE = 2.0  # kept as well


class Other:
    def route(self, queue):
        return queue


class Router:
    # A comment in the class.
    weight = 1

    def route(self, pending, servers, time):
        for r in pending:  # one after another
            target = min(servers, key=self.load)  # the least loaded
            yield r, target

    def load(self, server):
        return SCALE * math.sqrt(server.waiting + server.running)
'''
CONDITIONAL = """class Router:
  def route(me, queue, replicas, now):
    for request in queue:
      if request.prompt_tokens >= 0:
        yield request, min(replicas, key=lambda replica: replica.running)
"""
LIST = """class Router:
    def route(self, queue, replicas, now):
        pairs = []
        for request in queue:
            pairs.append((request, min(replicas, key=lambda replica: replica.waiting)))
        return pairs
"""
COMPREHENSION = """class Router:
    def route(self, queue, replicas, now):
        return [(request, min(replicas, key=lambda replica: replica.waiting)) for request in queue]
"""
NESTED = """class Router:
    def route(self, queue, replicas, now):
        for request in queue:
            for _ in range(1):
                yield request, min(replicas, key=lambda replica: replica.waiting)
"""
ROUND_ROBIN = """class Router:
    turn = 0

    def route(self, queue, replicas, now):
        for request in queue:
            self.turn += 1
            yield request, replicas[self.turn % len(replicas)]
"""
STYLES = {"lambda key": QUICKSTART, "method key": METHOD_KEY, "conditional": CONDITIONAL}
MECHANISMS = {mechanism.name: mechanism for mechanism in routing_mechanisms("Router")}
ADMISSION = ["hold requests without room"]
SEQUENCES = {
    "alone": [],
    "admitted": ADMISSION,
    "ordered": [*ADMISSION, "shortest prompt first"],
    "reserved": [*ADMISSION, "shortest prompt first", "reserve for new requests"],
    "late": ["bind late"],
    "spread": [*ADMISSION, "spread prefills"],
}
PAST_THE_KNEE = {
    "restarted_fraction": 0.22,
    "replica_wait_share": 0.62,
    "router_wait_share": 0.0,
    "recompute_share": 0.012,
    "kv_use_p99": 1.0,
    "kv_use_mean": 0.84,
    "batch_full_share": 0.0,
    "replica_imbalance": 0.17,
    "mean_prompt_tokens": 295.0,
    "mean_output_tokens": 362.0,
    "p99_response_time": 236.0,
    "mean_response_time": 63.0,
    "busy_share": 0.97,
    "prefill_share": 0.46,
    "p50_tpot": 0.051,
    "p99_tpot": 0.06,
}


def applied(source: str, names: list[str]) -> str | None:
    """The source with mechanisms at their defaults; None as soon as one has no place."""
    text: str | None = source
    for name in names:
        text = text and MECHANISMS[name].apply(text, MECHANISMS[name].defaults)
    return text


def load(source: str) -> Any:
    """An instance of the router."""
    namespace: dict[str, Any] = {"__name__": "candidate"}
    exec(compile(source, "candidate", "exec", dont_inherit=True), namespace)
    return namespace["Router"]()


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Half a minute far above capacity."""
    return workloads.sharegpt_bursty(rate=15.0, duration=30, seed=3)


def edits() -> Iterator[Any]:
    """Each style of router, edited by each sequence and then by each mechanism that has a place."""
    for style, source in STYLES.items():
        for sequence, names in SEQUENCES.items():
            before = applied(source, names)
            assert before is not None
            for mechanism in MECHANISMS.values():
                if mechanism.apply(before, mechanism.defaults) is not None:
                    yield pytest.param(before, mechanism, id=f"{style}, {sequence}, {mechanism.name}")


@pytest.mark.parametrize(("before", "mechanism"), list(edits()))
def test_edited_router_serves_every_request_once(
    before: str, mechanism: Mechanism, workload: Workload
) -> None:
    """An edit gives a router that loses no request, and is not made twice."""
    after = mechanism.apply(before, mechanism.defaults)
    assert after is not None
    assert mechanism.apply(after, mechanism.defaults) is None
    run = Cluster().run(workload, load(after))
    assert len(run.requests["finish"]) == len(workload)
    assert (run.requests["finish"] > run.requests["arrival"]).all()


@pytest.mark.parametrize(("before", "mechanism"), list(edits()))
def test_numbers_become_constants(before: str, mechanism: Mechanism) -> None:
    """Each number of a mechanism is a constant of the file, explained, with three significant digits."""
    numbers = {
        name: low if isinstance(low, int) else low * 1.23456 for name, (low, _) in mechanism.numbers.items()
    }
    after = mechanism.apply(before, numbers)
    assert after is not None
    for name, value in numbers.items():
        [line] = [each for each in after.splitlines() if each.startswith(f"{name} = ")]
        number, comment = line.removeprefix(f"{name} = ").split("  # ")
        assert ast.literal_eval(number) == pytest.approx(value, rel=5e-3)
        assert len(number) <= 7
        assert comment


def test_every_mechanism_has_a_place() -> None:
    """No mechanism is without a router that it can be worked into."""
    placed = {parameter.values[1].name for parameter in edits()}
    assert placed | {"back-fill", "ageing"} >= set(MECHANISMS)
    assert {"back-fill", "ageing"} <= placed


def test_everything_else_stays_as_written() -> None:
    """Comments, names and blank lines of the user survive; only lines with an edit differ."""
    after = applied(METHOD_KEY, [*SEQUENCES["reserved"], "reserve for growth", "back-fill"])
    assert after is not None
    lost = [line for line in METHOD_KEY.splitlines() if line not in after.splitlines()]
    assert lost == [
        "        for r in pending:  # one after another",
        "            target = min(servers, key=self.load)  # the least loaded",
    ]
    assert "for r in sorted(pending, key=lambda request: request.prompt_tokens):  # one after" in after
    assert "if self.fits(r, replica)" in after


@pytest.mark.parametrize("source", [COMPREHENSION, NESTED, ROUND_ROBIN], ids=["list", "nested", "turn"])
def test_admission_needs_a_choice_that_it_understands(source: str) -> None:
    """Where `min` is not the choice, or `break` would leave the wrong loop, there is no place."""
    assert applied(source, ADMISSION) is None
    assert applied(source, ["bind late"]) is None


def test_routers_that_collect_a_list_can_be_ordered_but_not_held(workload: Workload) -> None:
    """A list takes effect only when it is complete, so that free blocks would be promised twice."""
    assert applied(LIST, ADMISSION) is None
    ordered = applied(LIST, ["shortest prompt first"])
    assert ordered is not None
    assert len(Cluster().run(workload, load(ordered)).requests["finish"]) == len(workload)


@pytest.mark.parametrize(
    "source",
    [
        "class Router:\n    def route(self, queue):\n        yield\n",
        "def Router(q, r, n): ...\n",
        "class Router(",
    ],
    ids=["other parameters", "a function", "not Python"],
)
def test_other_candidates_get_no_ideas(source: str) -> None:
    """What is not a router is none of the domain's."""
    assert glia.glia_mechanisms("x.py", "Router", source) == []
    assert all(each.apply(source, each.defaults) is None for each in MECHANISMS.values())


def test_evidence_of_another_domain_calls_for_nothing() -> None:
    """Missing metrics are no error, and no reason."""
    for mechanism in MECHANISMS.values():
        assert mechanism.called_for({}) is None
        assert mechanism.called_for({"bins_used": 12.0, "router_wait_share": 0.9}) is None


@pytest.mark.parametrize(
    ("changed", "called"),
    [
        ({}, ["hold requests without room"]),
        ({"restarted_fraction": 0.0, "replica_wait_share": 0.0, "kv_use_p99": 0.5}, []),
        ({"kv_use_p99": 0.5, "batch_full_share": 0.7}, ["bind late"]),
        ({"recompute_share": 0.1}, ["hold requests without room", "reserve for growth"]),
        ({"replica_imbalance": 0.5}, ["hold requests without room", "place by blocks"]),
        (
            {"restarted_fraction": 0.0, "kv_use_mean": 0.95, "router_wait_share": 0.05, "p99_tpot": 0.09},
            ["hold requests without room", "spread prefills"],
        ),
    ],
    ids=["cache full", "idle", "batch full", "recomputation", "imbalance", "slow tokens"],
)
def test_evidence_calls_for_what_it_shows(changed: dict[str, float], called: list[str]) -> None:
    """Evictions call for admission, full batches for late binding, recomputation for growth, ..."""
    evidence = PAST_THE_KNEE | changed
    reasons = {name: each.called_for(evidence) for name, each in MECHANISMS.items()}
    assert [name for name, reason in reasons.items() if reason] == called
    assert all(any(sign.isdigit() for sign in reason) for reason in reasons.values() if reason)


def test_order_is_called_for_where_prompts_matter() -> None:
    """Held requests are ordered by prompt only if prompts are a good part of the tokens."""
    order = MECHANISMS["shortest prompt first"]
    assert order.called_for(PAST_THE_KNEE | {"router_wait_share": 0.5})
    assert order.called_for(PAST_THE_KNEE | {"router_wait_share": 0.5, "mean_prompt_tokens": 30.0}) is None


def test_winners_are_formatted() -> None:
    """No edit writes a line longer than 110 characters, even where two conditions meet."""
    design = applied(QUICKSTART, [*SEQUENCES["reserved"], "reserve for growth", "bind late"])
    assert design is not None
    assert "if self.fits(request, replica) and replica.waiting < MAX_WAITING\n" in design
    assert max(map(len, design.splitlines())) <= 110


def test_claims_and_numbers_are_complete() -> None:
    """A claim is one line of a docstring; defaults lie in their ranges; predictions have a direction."""
    assert len(MECHANISMS) == len(routing_mechanisms("Router"))
    for mechanism in MECHANISMS.values():
        assert len(mechanism.claim) <= 100
        assert mechanism.claim.endswith(".")
        assert set(mechanism.predicts.values()) <= {-1, 1}
        assert mechanism.numbers.keys() == mechanism.defaults.keys()
        for name, (low, high) in mechanism.numbers.items():
            assert low <= mechanism.defaults[name] <= high


def test_design_of_the_quickstart_removes_evictions() -> None:
    """Admission, order and reserve together finish sooner than the start, with fewer evictions."""
    trace = workloads.sharegpt_bursty(rate=9.0, duration=300, seed=1)
    design = applied(QUICKSTART, SEQUENCES["reserved"])
    assert design is not None
    assert len(design.splitlines()) <= 60
    before, after = (Cluster().run(trace, load(source)).metrics for source in (QUICKSTART, design))
    assert after["mean_response_time"] < before["mean_response_time"]
    assert after["restarted_fraction"] < 0.5 * before["restarted_fraction"]


def test_no_reserve_holds_a_request_for_ever() -> None:
    """A prompt that leaves no room for reserves is still served, by an idle replica."""
    design = applied(QUICKSTART, [*SEQUENCES["reserved"], "reserve in proportion to the prompt"])
    assert design is not None
    workload = Workload.from_arrays(arrival=[0.0] * 9, prompt_tokens=[1500] * 9, output_tokens=[50] * 9)
    run = Cluster(replicas=2, kv_blocks=100).run(workload, load(design))
    assert run.metrics["restarted_fraction"] == 0


def test_testbeds() -> None:
    """The simulator is a testbed; others are not ours."""
    assert glia.glia_testbed("sim") is Cluster
    assert glia.glia_testbed("gpu") is None
