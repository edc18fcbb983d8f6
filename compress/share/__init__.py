"""Weight sharing: few stored numbers that stand for many weights."""

from compress.share.methods import hashed, kmeans, product

__all__ = [
  'hashed',
  'kmeans',
  'product',
]
