"""Workloads: what arrives when, and how long it turns out to be.

An arrival process joined with a source of lengths (`generate`), sessions of several turns, a closed loop of
users, or a recorded trace (`load`); see docs/workloads.md.
"""

from sim.prefixes import Prefixes
from sim.workloads.arrivals import MMPP, Arrivals, Bursty, Gamma, Poisson, bursty_arrivals
from sim.workloads.closed import Clients, ClosedLoop, ClosedWorkload
from sim.workloads.describing import Description
from sim.workloads.generating import (
    changing_mix,
    code_completion,
    generate,
    sharegpt_bursty,
    short_prompts_long_outputs,
)
from sim.workloads.reshaping import at_rate, merge, resample, select, window, with_slo
from sim.workloads.sessions import Chat, Dialogues, Sessions
from sim.workloads.sharegpt import Conversations, conversations, estimate_tokens
from sim.workloads.sources import (
    SHAREGPT,
    Clipped,
    Column,
    Fixed,
    Independent,
    Joint,
    Lengths,
    LogNormal,
    Quantiles,
    Uniform,
)
from sim.workloads.table import Workload
from sim.workloads.traces import TraceError, azure_2023, load, mooncake, vidur, vllm_bench
from sim.workloads.varying import Diurnal, Ramp, Recorded, Steps, Waves

__all__ = [
    "MMPP",
    "SHAREGPT",
    "Arrivals",
    "Bursty",
    "Chat",
    "Clients",
    "Clipped",
    "ClosedLoop",
    "ClosedWorkload",
    "Column",
    "Conversations",
    "Description",
    "Dialogues",
    "Diurnal",
    "Fixed",
    "Gamma",
    "Independent",
    "Joint",
    "Lengths",
    "LogNormal",
    "Poisson",
    "Prefixes",
    "Quantiles",
    "Ramp",
    "Recorded",
    "Sessions",
    "Steps",
    "TraceError",
    "Uniform",
    "Waves",
    "Workload",
    "at_rate",
    "azure_2023",
    "bursty_arrivals",
    "changing_mix",
    "code_completion",
    "conversations",
    "estimate_tokens",
    "generate",
    "load",
    "merge",
    "mooncake",
    "resample",
    "select",
    "sharegpt_bursty",
    "short_prompts_long_outputs",
    "vidur",
    "vllm_bench",
    "window",
    "with_slo",
]
