"""Structured matrices and tied filters: weights made from fewer numbers."""

from compress.structured.chooser import auto
from compress.structured.matrices import (
  butterfly,
  circulant,
  fastfood,
  toeplitz,
)
from compress.structured.tied_filters import crelu, crop, multi_bias, rotate

__all__ = [
  'auto',
  'butterfly',
  'circulant',
  'crelu',
  'crop',
  'fastfood',
  'multi_bias',
  'rotate',
  'toeplitz',
]
