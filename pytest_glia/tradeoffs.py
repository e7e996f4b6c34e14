"""What a design note says of the other candidates in the Pareto set: what each gains and gives up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_glia.front import Contender, Front
from pytest_glia.markdown import prose
from pytest_glia.merit import CheckId

# Of the others that gain something; a note is to be read.
_MOST = 6


def trade_offs(front: Front, sources: Mapping[str, bytes]) -> str:
    """Those that are shown to be better in something than the winner with these sources; empty if none is."""
    winner = front.find(sources)
    if winner is None or len(front.objectives) < 2:
        return ""
    others = [each for each in front.members if each is not winner and _better(front, each, winner)]
    if not others:
        return ""
    header = (
        f"On the {len(winner.evaluation.seeds)} development seeds these are shown to be better in something "
        f"than this design, by more than {front.margin:g} (in logarithms of a ratio, or shares of the "
        f"threshold), paired, with {100 * front.confidence:.4g} % confidence each. None is confirmed. "
        f"To take another: `git checkout COMMIT -- {' '.join(sources)}`, and run the specs."
    )
    left = len(others) - _MOST
    more = [f"- {left} more: see the report of the run (`--glia-report`)."] if left > 0 else []
    return "\n".join([header, "", *(_told(front, each, winner) for each in others[:_MOST]), *more])


def _told(front: Front, each: Contender, winner: Contender) -> str:
    met = "meets all specs there" if each.evaluation.met() else "does not meet all specs there"
    gained, given_up = _better(front, each, winner), _better(front, winner, each)
    return (
        f"- **{prose(each.name)}** (`{each.commit[:9]}`), which {met}. "
        f"Gained: {_against(gained, each, winner)}. "
        f"Given up: {_against(given_up, each, winner) or 'nothing that is shown'}."
    )


def _better(front: Front, one: Contender, other: Contender) -> list[CheckId]:
    """In which objectives the one is shown to be better than the other."""
    return [which for which in front.objectives if front.change(which, one, other).high < -front.margin]


def _against(objectives: Sequence[CheckId], each: Contender, winner: Contender) -> str:
    told = []
    for which in objectives:
        ours, theirs = each.evaluation.checks[which], winner.evaluation.checks[which]
        told.append(f"{ours.what()} {ours.estimate()} instead of {theirs.estimate()}")
    return "; ".join(told)
