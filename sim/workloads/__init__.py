"""Workloads: what arrives when, and how long it turns out to be.

An arrival process joined with a source of lengths (`generate`), sessions of several turns, a closed loop of
users, or a recorded trace (`load`); see docs/workloads.md.
"""

from sim.prefixes import Prefixes
from sim.workloads.arrivals import MMPP, Arrivals, Bursty, Gamma, Poisson, bursty_arrivals
from sim.workloads.closed import Clients, ClosedLoop, ClosedWorkload
from sim.workloads.describing import Description
from sim.workloads.generating import generate, sharegpt_bursty, short_prompts_long_outputs
from sim.workloads.reshaping import at_rate, resample, select, window
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
from sim.workloads.varying import Diurnal, Ramp, Recorded, Steps

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
    "Workload",
    "at_rate",
    "azure_2023",
    "bursty_arrivals",
    "conversations",
    "estimate_tokens",
    "generate",
    "load",
    "mooncake",
    "resample",
    "select",
    "sharegpt_bursty",
    "short_prompts_long_outputs",
    "vidur",
    "vllm_bench",
    "window",
]
