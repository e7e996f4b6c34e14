"""Mechanisms: single ideas from the literature that a designer may work into a policy of any layer."""

from sim.mechanisms.mechanism import Mechanism
from sim.mechanisms.routing import routing_mechanisms
from sim.mechanisms.scaling import scaling_mechanisms
from sim.mechanisms.scheduling import scheduling_mechanisms
from sim.mechanisms.source import AutoscalerSource, RouterSource, SchedulerSource

__all__ = ["Mechanism", "mechanisms_of"]


def mechanisms_of(source: str, entry: str) -> list[Mechanism]:
    """The mechanisms of the layer that the class `entry` of this source belongs to; none if to no layer."""
    if RouterSource.of(source, entry):
        return routing_mechanisms(entry)
    if SchedulerSource.of(source, entry):
        return scheduling_mechanisms(entry)
    if AutoscalerSource.of(source, entry):
        return scaling_mechanisms(entry)
    return []
