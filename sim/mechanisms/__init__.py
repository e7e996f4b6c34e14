"""Routing mechanisms: single ideas from the literature that a designer may work into a router."""

from sim.mechanisms.routing import Mechanism, routing_mechanisms

__all__ = ["Mechanism", "routing_mechanisms"]
