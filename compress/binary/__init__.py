"""Binary weights and layer inputs, with latent weights in training."""

from compress.binary.inputs import inputs
from compress.binary.loss_aware import loss_aware
from compress.binary.presets import bnn, react, xnor
from compress.binary.weights import weights

__all__ = [
  'bnn',
  'inputs',
  'loss_aware',
  'react',
  'weights',
  'xnor',
]
