"""Tuning numbers of a candidate: a bracket for one number, Optuna for several; the specs judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pytest_glia.designers.source import Number, rounded

_FINE = 1.08
"""Values that differ by less than this factor are not parted by the few seeds of a quick look."""

Ranges = Mapping[str, tuple[float, float]]


def tune(
    ranges: Ranges,
    start: Mapping[str, Number],
    judge: Callable[[dict[str, Number]], float],
    *,
    trials: int,
) -> list[tuple[dict[str, Number], float]]:
    """Judge up to `trials` settings of some numbers besides `start`; returns each with its loss.

    Args:
        ranges: Lowest and highest value of each number, both inclusive; two ints make an integer.
        start: The values that are known already. They are not judged again.
        judge: The loss of a setting, smaller is better; infinite if it does not work.
        trials: How many settings to judge.

    The same losses give the same proposals.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=max(4, trials // 2))
    study = optuna.create_study(sampler=sampler)
    judged: list[tuple[dict[str, Number], float]] = []
    seen = [dict(start)]
    asked = 0
    while len(judged) < trials and asked < 4 * trials:
        asked += 1
        trial = study.ask()
        values = {name: _suggest(trial, name, *limits) for name, limits in ranges.items()}
        if values in seen:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        seen.append(values)
        loss = judge(values)
        judged.append((values, loss))
        study.tell(trial, loss if math.isfinite(loss) else 1e9)
    return judged


def bracket(
    limits: tuple[Number, Number],
    start: tuple[Number, float],
    judge: Callable[[Number], float],
    *,
    trials: int,
) -> list[tuple[Number, float]]:
    """Judge up to `trials` values of one number besides the start, given with its loss; each with its loss.

    First half-way to either end, then each value halves the wider of the gaps beside the best so far, by
    ratio where both ends are above zero, until they differ by less than 8 %. With a handful of looks that
    comes nearer to the bottom of a single dip than chance does.
    """
    low, high = limits
    losses = dict([start])

    def halved(one: Number, other: Number) -> Number:
        by_ratio = one > 0 and other > 0
        middle = math.sqrt(one) * math.sqrt(other) if by_ratio else one / 2 + other / 2
        value = round(middle) if isinstance(low, int) and isinstance(high, int) else rounded(middle)
        return min(max(value, low), high)

    def width(one: Number, other: Number) -> float:
        return abs(math.log(other) - math.log(one)) if one > 0 and other > 0 else abs(other - one)

    todo = [halved(start[0], end) for end in (low, high)]
    while len(losses) <= trials:
        if not todo:
            best = min(losses, key=lambda value: losses[value])
            known = sorted({low, high, *losses})
            place = known.index(best)
            beside = known[max(place - 1, 0) : place + 2]
            gaps = sorted((-width(best, other), other) for other in beside if other != best)
            if best > 0 and all(1 / _FINE < other / best < _FINE for _, other in gaps):
                break
            todo = [halved(best, other) for _, other in gaps]
            todo = [value for value in todo if value not in losses][:1]
            if not todo:
                break
        value = todo.pop(0)
        if value not in losses:
            loss = judge(value)
            losses[value] = loss if math.isfinite(loss) else math.inf
    return list(losses.items())[1:]


def around(value: Number) -> tuple[float, float]:
    """The range that is searched for a number of which nothing is known but its value.

    A quarter of it to four times it, of the same sign; from -1 to 1 around zero.
    """
    if value == 0:
        return (-1.0, 1.0) if isinstance(value, float) else (-1, 1)
    low, high = sorted((value / 4, value * 4))
    if isinstance(value, int):
        return (math.floor(low), math.ceil(high))
    return (low, high)


def _suggest(trial: object, name: str, low: float, high: float) -> Number:
    from optuna.trial import Trial

    assert isinstance(trial, Trial)
    log = low > 0
    if isinstance(low, int) and isinstance(high, int):
        return int(trial.suggest_int(name, low, high, log=log))
    value = float(trial.suggest_float(name, low, high, log=log))
    return rounded(value) if low <= rounded(value) <= high else value
