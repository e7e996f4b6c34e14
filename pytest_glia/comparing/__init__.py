"""Designers side by side: the same specs, the same budget, several real runs of each."""
