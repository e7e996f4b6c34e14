"""Workloads that only a seed decides: arrivals joined with lengths, and those that the specs use."""

from __future__ import annotations

from sim.streams import ARRIVALS, OUTPUTS, PROMPTS, stream
from sim.workloads import fields
from sim.workloads.arrivals import Arrivals, Bursty, Gamma
from sim.workloads.reshaping import merge, with_slo
from sim.workloads.sources import SHAREGPT, Independent, Lengths, LogNormal, Quantiles, Uniform
from sim.workloads.table import Workload
from sim.workloads.varying import Diurnal, Waves

__all__ = [
    "changing_mix",
    "code_completion",
    "generate",
    "sharegpt_bursty",
    "short_prompts_long_outputs",
]


def generate(arrivals: Arrivals, lengths: Lengths, seed: int) -> Workload:
    """Requests that come as `arrivals` says and are as long as `lengths` says.

    Arrivals, prompts and outputs come from separate streams of the seed: the k-th request has the same
    lengths under any arrivals, and the same arrivals have any lengths.
    """
    fields.drawn(None, "times", "arrivals, as sim.workloads.Poisson(8.0, 100)", arrivals=arrivals)
    fields.drawn(None, "draw", "lengths, as sim.workloads.SHAREGPT", lengths=lengths)
    times = arrivals.times(stream(seed, ARRIVALS))
    prompt_tokens, output_tokens = lengths.draw(stream(seed, PROMPTS), stream(seed, OUTPUTS), len(times))
    return Workload.from_arrays(arrival=times, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def sharegpt_bursty(rate: float, duration: float, seed: int, conditioned: bool = True) -> Workload:
    """Chat requests with ShareGPT's lengths (see `sim.lengths`) in bursts (see `bursty_arrivals`).

    rate in requests/s, duration in seconds. Arrivals, prompts and outputs come from separate streams of the
    seed: the k-th request has the same lengths at any rate.
    """
    return generate(Bursty(rate, duration, conditioned), SHAREGPT, seed)


def short_prompts_long_outputs(rate: float, duration: float, seed: int, conditioned: bool = True) -> Workload:
    """Short questions with long answers: prompts uniform on 20 to 120 tokens, outputs log-normal, in bursts.

    Outputs have sigma 0.8 and a mean of 800 tokens before they are cut at 4,096 (about 785 after). A prompt
    says nothing of its answer's length. Arguments and streams as for `sharegpt_bursty`.
    """
    lengths = Independent(Uniform(20, 120), LogNormal(mean=800, sigma=0.8, high=4096))
    return generate(Bursty(rate, duration, conditioned), lengths, seed)


_CODE = Independent(
    Quantiles((3, 17, 147, 578, 1469, 2745, 5188, 7436, 7437), (0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)),
    Quantiles((6, 7, 9, 13, 24, 55, 251, 600), (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)),
)
"""Quantiles of Azure's 2023 trace of a code model (github.com/Azure/AzurePublicDataset, CC-BY-4.0); the two
lengths are uncorrelated in it. The longest hundredth of its outputs, up to 1,899 tokens, is cut at 600."""


def code_completion(rate: float, duration: float, seed: int) -> Workload:
    """Prefill-heavy requests: long prompts of code, short completions, in moderate bursts.

    Lengths are those of Azure's code trace: prompts of 2,000 tokens on average, one in ten above 5,188, and
    outputs of 33. Gaps have a coefficient of variation of 2. rate in requests/s, duration in seconds; streams
    as for `sharegpt_bursty`.
    """
    return generate(Gamma(rate, 2.0, duration), _CODE, seed)


_JOBS = Independent(
    LogNormal(mean=1500, sigma=0.8, low=64, high=6000), LogNormal(mean=1000, sigma=0.6, low=16, high=3000)
)


def changing_mix(rate: float, duration: float, seed: int, ttft: float = 5.0, tpot: float = 0.15) -> Workload:
    """A day whose load and mix vary: chat by day and night, surges of it, and jobs that come in waves.

    Chat has ShareGPT's lengths: `rate` requests/s on average, 0.4 of that at both ends of the duration (a
    night) and 1.6 in its middle; and surges of rate / 2, about every quarter of the duration, which last an
    18th of it and rise and fall within a 60th. Jobs have prompts of 1,500 tokens and outputs of 1,000, and
    come in waves of 0.4 x rate: a sixth of the duration apart, a ninth long, with ramps of a 15th. A job
    holds about eight times as much KV cache for three times as long as a chat request, so how many requests a
    second a replica can serve differs by the hour. Each request has SLOs of `ttft` and `tpot` seconds.
    """
    chat: tuple[Arrivals, ...] = (
        Diurnal(rate, 0.6, duration, period=duration),
        Waves(0.0, rate / 2, (duration / 4, duration / 18), duration / 60, duration),
    )
    jobs = Waves(0.0, 0.4 * rate, (duration / 6, duration / 9), duration / 15, duration)
    parts = [*((arrivals, SHAREGPT) for arrivals in chat), (jobs, _JOBS)]
    # Each part has a seed of its own, or they would rise and fall together.
    seeds = (3 * seed + part for part in range(3))
    merged = merge(*(generate(*part, own) for part, own in zip(parts, seeds, strict=True)))
    return with_slo(merged, ttft=ttft, tpot=tpot)
