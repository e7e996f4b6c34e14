"""Glia's agents: a Researcher that reasons, an Experimenter, an Analyst, and a Supervisor that asks."""
