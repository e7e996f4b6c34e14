"""What a design claims: lines that no claim covers, and the record from which it is verified."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from pytest_glia.delivered import Ablated, Delivered
from pytest_glia.designers import Claim, Finding, Retested
from pytest_glia.rationale import uncovered
from pytest_glia.retesting import AnalysisAgain, ExperimentAgain

PATH = "pump.py"
START = "def pump(x):\n    return x\n"
DESIGN = '''\
"""A pump that is better."""

LIMIT = 3  # at most


def pump(x):
    """Waits."""
    # Not too much.
    x = min(x, LIMIT)
    x += 1
    return x
'''


def claim(name: str, without: str) -> Claim:
    """One whose removal leaves that text."""
    return Claim(name, "It helps.", "", {}, {}, {PATH: without.encode()})


def lines(*claims: Claim, design: str = DESIGN, start: str = START) -> list[int]:
    """The numbers of the lines that are left."""
    found = uncovered({PATH: design.encode()}, {PATH: start.encode()}, claims)
    assert all(design.splitlines()[number - 1] == text for _, number, text in found)
    return [number for _, number, _ in found]


def test_what_no_claim_takes_out_is_uncovered() -> None:
    """New lines of code: 3, 9 and 10 here; docstrings, comments and blank lines claim nothing."""
    assert lines() == [3, 9, 10]


def test_a_claim_covers_what_it_takes_out() -> None:
    """Each its own lines; what two take out is covered, too."""
    limit = claim(
        "limit", DESIGN.replace("    x = min(x, LIMIT)\n", "").replace("LIMIT = 3  # at most\n", "")
    )
    one = claim("one", DESIGN.replace("    x += 1\n", ""))
    assert lines(limit) == [10]
    assert lines(one) == [3, 9]
    assert lines(limit, one) == lines(limit, one, claim("all", START)) == []


def test_a_changed_line_is_covered_where_it_is_changed_back() -> None:
    """A claim may be about one number."""
    assert lines(claim("limit", DESIGN.replace("LIMIT = 3", "LIMIT = 30"))) == [9, 10]


def test_a_claim_that_takes_nothing_out_covers_nothing() -> None:
    """Whatever it says."""
    assert lines(claim("words", DESIGN)) == lines()


def test_the_start_needs_no_claim() -> None:
    """Only what is new does, also in a file that is not Python by then."""
    assert lines(design=START) == []
    assert lines(design="def pump(:\n", start=START) == [1]


@pytest.mark.parametrize("mapping", [dict, MappingProxyType])
def test_what_was_delivered_comes_back_from_the_record(mapping: type) -> None:
    """Sources, claims with the design without them, findings with how to test them again, verdicts."""
    sources = {PATH: DESIGN.encode()}
    idea = Claim(
        *(
            "one",
            "It helps.",
            "a surprise",
            mapping({"waste": -1}),
            mapping({"LIMIT": 3.0}),
            {PATH: b"x = 1\n"},
        ),
        *(("limit",), "1.E2", "waste -20 %", mapping({"waste": 0.2})),
    )
    again = ExperimentAgain({"start": sources}, {"load": 2.0}, (("start", "waste", "lower"),))
    code = AnalysisAgain("findings['a'] = 1", {"a": 1.0}, {"start": sources}, {}, 2)
    delivered = Delivered(
        sources,
        True,
        "| spec |",
        [idea],
        [Finding("One.", "1.E1", "less", again), Finding("Two.", "1.A1", "a = 1", code)],
        {"one": Ablated("worse", "+0.2 [+0.1, +0.3]", {"waste": (2.0, 1.0)})},
        {"One.": Retested("waste -20 %", "as before")},
    )
    back = Delivered.from_json(delivered.as_json())
    assert back.claims[0].without == {PATH: b"x = 1\n"}
    assert back.claims == delivered.claims
    assert (back.sources, back.findings, back.retested) == (sources, delivered.findings, delivered.retested)
    assert back.ablated["one"].result == "worse"
    assert back.as_json() == delivered.as_json()
