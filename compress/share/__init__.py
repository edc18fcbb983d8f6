"""Weight sharing: few stored numbers that stand for many weights."""

from compress.share.hashed import hashed
from compress.share.kmeans import kmeans
from compress.share.product import product

__all__ = [
  'hashed',
  'kmeans',
  'product',
]
