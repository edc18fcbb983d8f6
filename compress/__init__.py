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
from compress.dataflow import apply, features, sites
from compress.learning_compression import admm, lc
from compress.method import Batch, Ctx, Method, Probe, chain, only
from compress.probing import probe
from compress.recipe import parse
from compress.training import (
  Gradients,
  init,
  trainable,
  update,
  value_and_grad,
)
from compress.tree import Compressed, decode, decode_training, freeze

__all__ = [
  'Batch',
  'Compressed',
  'Ctx',
  'Gradients',
  'Method',
  'Probe',
  'admm',
  'apply',
  'binary',
  'chain',
  'channels',
  'decode',
  'decode_training',
  'distill',
  'features',
  'freeze',
  'init',
  'lc',
  'lowrank',
  'only',
  'parse',
  'probe',
  'prune',
  'quantize',
  'regularize',
  'schedule',
  'share',
  'sites',
  'structured',
  'trainable',
  'update',
  'value_and_grad',
]
