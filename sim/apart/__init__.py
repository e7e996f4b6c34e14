"""A policy in another process than the simulator: what it may observe goes there, what it decides comes back.

The process that has the policy (`answering`) holds a copy of the memory behind the views and nothing else of
a run: no output lengths, nothing of what has not arrived, and not how much will. Each question brings the
copy up to date; the views and the checks there are those of a run. Of an answer only numbers are believed.

(`gpu_harness.apart` does the same for real servers, whose views lie in no arrays.)
"""

from sim.apart.answering import answering
from sim.apart.asking import asking, observed

__all__ = ["answering", "asking", "observed"]
