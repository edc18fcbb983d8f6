"""Passes that make a trained network really smaller."""
