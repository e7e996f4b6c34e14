"""Workloads that only a seed decides: arrivals joined with lengths, and the two that the specs use."""

from __future__ import annotations

from sim.streams import ARRIVALS, OUTPUTS, PROMPTS, stream
from sim.workloads import fields
from sim.workloads.arrivals import Arrivals, Bursty
from sim.workloads.sources import SHAREGPT, Independent, Lengths, LogNormal, Uniform
from sim.workloads.table import Workload

__all__ = ["generate", "sharegpt_bursty", "short_prompts_long_outputs"]


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
