"""Knowledge distillation: losses between a network and its teacher."""

from compress.distill.features import attention, fitnet, probe
from compress.distill.logits import dist, dkd, kd, mse
from compress.distill.regression import bounded, trusted
from compress.distill.relational import rkd

__all__ = [
  'attention',
  'bounded',
  'dist',
  'dkd',
  'fitnet',
  'kd',
  'mse',
  'probe',
  'rkd',
  'trusted',
]
