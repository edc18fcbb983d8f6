"""Searches: trials of configs, and what they find."""
