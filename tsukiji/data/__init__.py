"""Data sets as arrays, and the batches of a step."""
