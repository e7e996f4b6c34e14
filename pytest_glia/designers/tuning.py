"""Tuning numbers of a candidate: Optuna proposes, the specs judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pytest_glia.designers.source import Number, rounded

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
    if len(ranges) == 1 and start:
        # Half-way to either end tells on which side to look, sooner than chance does.
        [(name, (low, high))] = ranges.items()
        for end in (low, high):
            middle = math.sqrt(start[name] * end) if start[name] * end > 0 else (start[name] + end) / 2
            study.enqueue_trial({name: round(middle) if isinstance(end, int) else middle})
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
