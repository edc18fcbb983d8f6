"""Low-rank factorization: weights as products of smaller ones."""

from compress.lowrank.budget import auto
from compress.lowrank.decompose import cp, svd, tucker
from compress.lowrank.learned_rank import learned_rank
from compress.lowrank.plus_sparse import plus_sparse

__all__ = [
  'auto',
  'cp',
  'learned_rank',
  'plus_sparse',
  'svd',
  'tucker',
]
