"""Pruning of weights, blocks, channels and neurons."""

from compress.channels.filters import filters
from compress.channels.neurons import neurons
from compress.prune.budget import auto
from compress.prune.dynamic import movement, rigl
from compress.prune.l0 import l0
from compress.prune.lottery_ticket import lottery_ticket
from compress.prune.magnitude import threshold, weights
from compress.prune.obs import obs
from compress.prune.semi_structured import blocks, n_m
from compress.prune.variational_dropout import variational

__all__ = [
  'auto',
  'blocks',
  'filters',
  'l0',
  'lottery_ticket',
  'movement',
  'n_m',
  'neurons',
  'obs',
  'rigl',
  'threshold',
  'variational',
  'weights',
]
