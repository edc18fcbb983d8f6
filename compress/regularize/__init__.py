"""Penalties that make weights easier to prune or to code."""

from compress.regularize.entropy import entropy
from compress.regularize.penalties import group_lasso, l1, l2, shrink

__all__ = [
  'entropy',
  'group_lasso',
  'l1',
  'l2',
  'shrink',
]
