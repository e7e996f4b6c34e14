"""A fast, faithful simulator of an LLM-serving cluster, for policies written in Python.

from sim import Cluster, workloads
from sim.baselines import LeastLoadedQueue

trace = workloads.sharegpt_bursty(rate=8.0, duration=1000, seed=1)
run = Cluster(replicas=4).run(trace, router=LeastLoadedQueue())
run.metrics["mean_response_time"]
"""

from sim import workloads
from sim.cluster import Cluster, Replica, warm_up
from sim.policies import PolicyError
from sim.prefixes import Prefixes
from sim.results import Run
from sim.scaling import Autoscaling, Failure
from sim.scheduling import Plan
from sim.workloads import Workload

__all__ = [
    "Autoscaling",
    "Cluster",
    "Failure",
    "Plan",
    "PolicyError",
    "Prefixes",
    "Replica",
    "Run",
    "Workload",
    "warm_up",
    "workloads",
]
