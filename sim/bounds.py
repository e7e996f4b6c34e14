"""Lower bounds: mean response time and TTFT that no router and batch scheduler can beat on a cluster and a
workload, so that what is left to gain is known.

Two relaxations; the larger one is the bound. They forget all that a policy could do wrong, and keep

**alone**: a request takes at least what its steps take with nothing else in them, on the replica where that
is least. A step of t tokens takes at least f(t), the least of linear parts, LM head and CPU work over steps
of t tokens or more. n prompt tokens take f(n) in one step, and in J steps at least J a + b n for every line
a + b t below f. A token that reads q KV tokens takes f(1) + g q, with g the least time per KV token of any
batch of decodes; unless the request was evicted and the token comes out of a prefill of all q tokens or, with
prefix caching, of the last of them.

**pool**: lines below f make steps additive. If a + b t <= f(t), a step of a replica with K blocks and S seats
takes at least the sum over its requests of

    a x (own blocks / K, or 1 / S) + b x tokens + g x KV tokens read, or the pairs of a prefill,

for no more than K blocks and S seats are in use. So each token needs so many seconds of a replica, and all
replicas together process at most their number of such seconds a second. Let that machine work on anything
whose request has had the time, alone, to get so far (in PORTIONS of its tokens), and let w be the seconds of
a request. Of all such schedules the one that always works on the request of least w has the least sum over
requests of the mean moment M of their work (unit jobs with release dates and weights 1 / w; Goemans et al.,
SIAM J. Discrete Math. 15, 2002). A step's work is spread over the step, and after it a request still takes
what it takes alone: it ends no sooner than M plus the mean of that time over its work. Replicas that differ
count by speeds v: the seconds of a portion are the least of v w over replicas, and the sum of v replaces
their number.

Tokens in blocks that another request has too may be found in its cache and count for nothing.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.cluster import Cluster, Replica
from sim.costs.step import (
    BASE,
    BESIDE_PREFILL,
    CHUNK_TOKEN,
    CONTEXT_KNOTS,
    HALF_PAIR,
    PARALLEL_CPU,
    PER_KV_TOKEN,
    SEGMENTS,
    SERIAL_CPU,
    Tables,
)
from sim.workloads import Workload

__all__ = ["Bound", "mean_response_time", "mean_ttft"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bound:
    """No run to its end can be below it; one to a horizon can, for it counts requests that had not finished
    with the time until then."""

    seconds: float
    relaxation: Literal["alone", "pool"]
    """Which of the two it is, as the module says."""


PORTIONS = 16
"""Parts in which the decoded tokens of a request come to the pool, after its prefill."""


@dataclass(frozen=True)
class _Needs:
    """What each request needs at least on one kind of replica, in seconds; 0 if it is rejected there. All but
    `alone` by portion and request."""

    alone: Floats
    """From its arrival to its end."""
    work: Floats
    """Of a replica's time, in the pool."""
    start: Floats
    """From its arrival until the portion can begin."""
    tail: Floats
    """From the mean moment of the portion's work to the request's end."""


def mean_response_time(cluster: Cluster, workload: Workload) -> Bound:
    """A mean response time in seconds that no run of the workload on the cluster can be below.

    ValueError if the cluster scales or fails, or the workload is a closed loop: a replica's share of the
    work, or the arrivals, are then not known beforehand.
    """
    return _bound(cluster, workload, whole=True)


def mean_ttft(cluster: Cluster, workload: Workload) -> Bound:
    """A mean time to the first token that no run can be below: as `mean_response_time`, with all output
    tokens but the first for nothing."""
    return _bound(cluster, workload, whole=False)


def _bound(cluster: Cluster, workload: Workload, whole: bool) -> Bound:
    if not isinstance(workload, Workload):
        raise ValueError(
            f"workload={type(workload).__name__}; a bound is known only for a sim.Workload, whose arrivals "
            "do not hang on the policies"
        )
    if cluster.autoscaling is not None or cluster.failures:
        raise ValueError(
            f"autoscaling={cluster.autoscaling!r} and failures={cluster.failures!r}; a bound is known only "
            "for a cluster with neither"
        )
    if len(workload) == 0:
        return Bound(0.0, "alone")
    shared = _shared_tokens(cluster, workload)
    kinds: dict[tuple[object, ...], _Needs] = {}
    replicas = []
    names = tuple(field.name for field in fields(Replica))
    for index in range(cluster.replicas):
        kind = tuple(cluster.setting(index, name) for name in names)
        if kind not in kinds:
            kinds[kind] = _needs(cluster, index, workload, shared, whole)
        replicas.append(kinds[kind])
    served = np.all([needs.alone > 0 for needs in kinds.values()], axis=0)  # where it is sent, it runs
    alone, start, tail = (
        np.min([getattr(needs, name) for needs in kinds.values()], axis=0)[..., served]
        for name in ("alone", "start", "tail")
    )
    totals = [float(needs.work[:, served].sum()) for needs in replicas]
    speeds = [totals[0] / total if total else 1.0 for total in totals]
    scaled = [needs.work[:, served] * speed for needs, speed in zip(replicas, speeds, strict=True)]
    work = np.min(scaled, axis=0)
    moments = _mean_moments(workload.arrival[served] + start, work, sum(speeds))
    in_pool = moments - workload.arrival[served] + (work * tail).sum(axis=0) / work.sum(axis=0)
    by_alone, by_pool = float(alone.sum()), float(in_pool.sum())
    return Bound(max(by_alone, by_pool) / len(workload), "alone" if by_alone >= by_pool else "pool")


def _shared_tokens(cluster: Cluster, workload: Workload) -> Ints:
    """Tokens of each request, from its first on, that may be found in the cache though it never computed
    them."""
    most = (workload.prompt_tokens + workload.output_tokens - 2) // cluster.block_size
    shared = np.zeros(len(workload), np.int64)
    if not cluster.caches_prefixes or workload.prefixes is None:
        return shared
    starts, hashes = workload.prefixes.in_blocks(cluster.block_size)
    _, dense, times = np.unique(hashes, return_inverse=True, return_counts=True)
    alike = times[dense] > 1
    for request, (begin, end) in enumerate(pairwise(starts)):
        own = np.flatnonzero(~alike[begin:end])
        shared[request] = own[0] if len(own) else end - begin
    found: Ints = np.minimum(shared, np.maximum(most, 0)) * cluster.block_size
    return found


def _least_steps(tables: Tables, budget: int, seats: int) -> Floats:
    """f(t), t from 0 to `budget`: the least seconds of a step of t tokens or more, attention apart."""
    steps = tables.linear[: budget + 1] + tables.head[1 : seats + 1].min() + tables.rates[SERIAL_CPU]
    least: Floats = np.minimum.accumulate(steps[::-1])[::-1]
    return least


def _lines_below(least: Floats) -> list[tuple[float, float]]:
    """Lines (a, b) with a + b t <= least[t] for t >= 1, and a >= 0: the sides of its lower convex hull."""
    hull = [1]
    for t in range(2, len(least)):
        while len(hull) > 1 and (least[t] - least[hull[-2]]) * (hull[-1] - hull[-2]) <= (
            least[hull[-1]] - least[hull[-2]]
        ) * (t - hull[-2]):
            hull.pop()
        hull.append(t)
    lines = [(float(least[1]), 0.0)]
    for one, other in pairwise(hull):
        slope = float((least[other] - least[one]) / (other - one))
        level = float(np.min(least[1:] - slope * np.arange(1, len(least))))
        if level >= 0:
            lines.append((level, slope))
    return lines


def _least_per_kv_token(tables: Tables, seats: int) -> float:
    """g: the least attention time per KV token of any batch of decodes, alone or beside a prefill.

    In each segment time over tokens is monotone in the mean context, so it is least at a knot or at the end.
    """
    decodes = np.arange(1, seats + 1)
    least = np.inf
    for at in (0, BESIDE_PREFILL):
        rows = tables.decode[1 : seats + 1, at:]
        for segment, knot in enumerate(CONTEXT_KNOTS):
            rate = rows[:, BASE + segment] / (decodes * knot) + rows[:, PER_KV_TOKEN + segment]
            least = min(least, float(rate.min()))
        least = min(least, float(rows[:, PER_KV_TOKEN + SEGMENTS - 1].min()))
    return max(least, 0.0)


def _needs(cluster: Cluster, index: int, workload: Workload, shared: Ints, whole: bool) -> _Needs:
    """What the requests need on this replica; 0 for those that it rejects."""
    tables = cluster.tables(index)
    budget, seats = (cluster.setting(index, name) for name in ("max_num_batched_tokens", "max_num_seqs"))
    blocks, size = cluster.setting(index, "kv_blocks"), cluster.block_size
    largest = blocks - (1 if cluster.engine == "vllm" else cluster.watermark_of(blocks))
    blocks -= cluster.engine == "vllm"
    rates = tables.rates
    least = _least_steps(tables, budget, seats)
    lines = _lines_below(least)
    step = max(float(least[1]), float(rates[PARALLEL_CPU]) + float(rates[SERIAL_CPU]))
    per_kv_token, half_pair = _least_per_kv_token(tables, seats), float(rates[HALF_PAIR])
    chunk_token = float(rates[CHUNK_TOKEN])

    prompt = workload.prompt_tokens
    full = prompt + workload.output_tokens - 1
    fits = -(-full // size) <= largest
    last = full if whole else prompt
    ahead = np.maximum(prompt - shared, 1)  # prompt tokens that it computes itself, at its end
    pairs = (prompt * (prompt + 1) - (prompt - ahead) * (prompt - ahead + 1)) * half_pair
    pairs = pairs + ahead * chunk_token
    reads = np.arange(int(last.max()) + 1)  # q, of a token that reads q KV tokens, itself among them

    # A prompt alone: in one step, or in more by the best line.
    few = -(-ahead // budget)
    split = np.max([np.maximum(few, 2) * a + b * ahead for a, b in lines], axis=0)
    prefill = np.where(few == 1, np.minimum(least[np.minimum(ahead, budget)], split), split) + pairs
    prefill = np.maximum(prefill, step)
    # A token alone: decoded, or the end of a prefill after an eviction.
    again = reads * (reads + 1) * half_pair  # pairs of a prefill of q tokens
    if cluster.caches_prefixes:
        refill = least[1] + 2 * reads * half_pair
    else:
        refill = np.max([a + b * reads for a, b in lines], axis=0) + again
    token = np.maximum(np.minimum(least[1] + reads * per_kv_token, refill), step)
    after = np.cumsum(token)
    rest = after[last] - after[prompt]

    edges = prompt + (last - prompt) * np.arange(PORTIONS + 1)[:, None] // PORTIONS
    lower, upper = edges[:-1], edges[1:]
    unshared = np.clip(shared, lower, upper)
    start = np.vstack([np.zeros(len(prompt)), prefill + after[lower] - after[prompt]])
    best: _Needs | None = None
    for a, b in lines:
        extra = 2 * reads * half_pair if cluster.caches_prefixes else np.maximum(reads - 1, 0) * b + again
        computing = _sums(b + np.minimum(reads * per_kv_token, extra), after, lower, upper, last)
        by_blocks = a * -(-reads // size) / blocks, a * (shared // size) / blocks
        by_seats = np.full(len(reads), a / seats), np.zeros(len(prompt))
        for share, found in (by_blocks, by_seats):
            holding = _sums(share, after, unshared, upper, last)
            sharing = found * _sums(np.ones(len(reads)), after, unshared, upper, last)
            work, late = computing + holding - sharing
            first = ahead * b + pairs + np.maximum(share[prompt] - found, 0.0)
            tail = np.divide(late, work, out=np.zeros_like(work), where=work > 0)
            if best is None or (first + work.sum(axis=0))[fits].sum() > best.work[:, fits].sum():
                best = _Needs(
                    alone=np.where(fits, prefill + rest, 0.0),
                    work=np.where(fits, np.vstack([first, work]), 0.0),
                    start=start,
                    tail=np.vstack([rest, tail]) + step / 2,
                )
    assert best is not None
    return best


def _sums(each: Floats, after: Floats, lower: Ints, upper: Ints, last: Ints) -> Floats:
    """Two sums over tokens from `lower` + 1 to `upper`: of `each`, and of each times the time to the end,
    where after[q] is the moment at which token q has been made."""
    total, moments = (sums[upper] - sums[lower] for sums in (np.cumsum(each), np.cumsum(each * after)))
    return np.stack([total, after[last] * total - moments])


def _mean_moments(comes: Floats, work: Floats, speed: float) -> Floats:
    """Mean moment of each request's work, whose portions come at these times, where a machine of that speed
    always works on the request that needs least in all."""
    needs: list[float] = work.sum(axis=0).tolist()
    portions, requests = np.nonzero(work)
    order = np.argsort(comes[portions, requests], kind="stable")
    coming = zip(
        comes[portions, requests][order].tolist(),
        requests[order].tolist(),
        (work[portions, requests] / speed)[order].tolist(),
        strict=True,
    )
    left, moments = [0.0] * len(needs), [0.0] * len(needs)
    ready: list[tuple[float, int]] = []
    now = 0.0
    for until, request, seconds in (*coming, (np.inf, -1, 0.0)):
        while ready and now < until:
            first = ready[0][1]
            end = min(now + left[first], until)
            moments[first] += (end - now) * (now + end) / 2
            if end < until or now + left[first] == until:
                heapq.heappop(ready)
                left[first] = 0.0
            else:
                left[first] -= end - now
            now = end
        now = until
        if request >= 0:
            if left[request] == 0.0:
                heapq.heappush(ready, (needs[request], request))
            left[request] += seconds
    means: Floats = np.array(moments) * speed / np.array(needs)
    return means
