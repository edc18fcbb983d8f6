"""Compression of parameter trees, by methods that are pure functions.

Methods are named as in recipes: `compress.prune.weights(0.9)` is the method of
`compress.parse('prune.weights(0.9)')`.
"""

from compress import (
  binary,
  channels,
  distill,
  lowrank,
  prune,
  quantize,
  regularize,
  schedule,
  share,
  structured,
)
from compress.learning_compression import admm, lc
from compress.method import Batch, Ctx, Method, Probe, chain, only
from compress.recipe import parse
from compress.tree import Compressed, decode, freeze

__all__ = [
  'Batch',
  'Compressed',
  'Ctx',
  'Method',
  'Probe',
  'admm',
  'binary',
  'chain',
  'channels',
  'decode',
  'distill',
  'freeze',
  'lc',
  'lowrank',
  'only',
  'parse',
  'prune',
  'quantize',
  'regularize',
  'schedule',
  'share',
  'structured',
]
