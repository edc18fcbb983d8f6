"""Configs: their fields, what may vary, and checks before a run."""
