"""Searches: trials of configs and their results."""
