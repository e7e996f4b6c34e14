"""Readers of measured operator times: one file per tool that took them."""
