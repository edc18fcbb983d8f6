"""Experiments: cells and trials, from a config to rows."""
