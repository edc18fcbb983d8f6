"""Three networks of one's own on handwritten digits: train, compress, export.

  python main.py --config=configs/own_networks.py

A residual network with group norms, a transformer and an LSTM, as anyone writes
them in Flax. For the last two the rows of an image are the time steps of a
sensor window.
"""

from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from tsukiji import settings


class ResNet(nn.Module):
  """A residual network with group norms."""

  outputs: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the logits of images `[batch, height, width, channels]`."""
    x = nn.Conv(self.width, (3, 3), name='stem')(x)
    for i in range(2):
      y = nn.relu(nn.GroupNorm(4, name=f'norm{i}a')(x))
      y = nn.Conv(self.width, (3, 3), name=f'conv{i}a')(y)
      y = nn.relu(nn.GroupNorm(4, name=f'norm{i}b')(y))
      x = x + nn.Conv(self.width, (3, 3), name=f'conv{i}b')(y)
    x = nn.relu(nn.GroupNorm(4, name='norm')(x))
    x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
    return nn.Dense(self.outputs, name='head')(x)


class Transformer(nn.Module):
  """One block of attention over the steps of a window."""

  outputs: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Return the logits of windows `[batch, time, ...]`."""
    x = nn.Dense(self.width, name='embed')(x.reshape(*x.shape[:2], -1))
    place = nn.initializers.normal(0.1)
    x = x + self.param('place', place, x.shape[1:])
    y = nn.LayerNorm(name='norm1')(x)
    x = x + nn.MultiHeadDotProductAttention(4, name='attention')(y)
    y = nn.Dense(2 * self.width, name='up')(nn.LayerNorm(name='norm2')(x))
    y = nn.Dropout(0.1, deterministic=not train)(nn.gelu(y))
    x = x + nn.Dense(self.width, name='down')(y)
    return nn.Dense(self.outputs, name='head')(x.mean(1))


class LSTM(nn.Module):
  """A recurrent network over the steps of a window."""

  outputs: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the logits of windows `[batch, time, ...]`."""
    x = x.reshape(*x.shape[:2], -1)
    cell = nn.OptimizedLSTMCell(self.width, name='cell')
    steps: Any = nn.RNN(cell, name='rnn')(x)
    return nn.Dense(self.outputs, name='head')(steps[:, -1])


def resnet(shape: Any, outputs: int, width: int = 32) -> nn.Module:
  """Return a residual network."""
  return ResNet(outputs, width)


def transformer(shape: Any, outputs: int, width: int = 32) -> nn.Module:
  """Return a transformer."""
  return Transformer(outputs, width)


def lstm(shape: Any, outputs: int, width: int = 48) -> nn.Module:
  """Return a recurrent network."""
  return LSTM(outputs, width)


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' runs in seconds and learns little."""
  config = settings.default()
  config.title = 'Networks of your own: handwritten digits'
  config.networks = {
    name: settings.network(f'configs.own_networks:{name}')
    for name in ('resnet', 'transformer', 'lstm')
  }
  config.train = settings.training(epochs=40, batch_size=64, lr=5e-3)
  config.finetune = settings.training(epochs=25, batch_size=64, lr=5e-3)
  config.recipes = {
    'int8': settings.compression(
      'quantize.int8()', 'quantize', mode='ptq', epochs=0
    ),
    'prune80_int8': settings.compression(
      'prune.weights(0.8, schedule=cubic(0.0, 0.5)) >> quantize.int8()',
      'combined',
      mode='qat',
    ),
    'svd50': settings.compression('lowrank.svd(0.5)', 'lowrank'),
  }
  config.measure.engines = ('jax', 'onnxruntime', 'c')
  return _tiny(config) if arg == 'tiny' else config


def _tiny(config: ConfigDict) -> ConfigDict:
  config.train.epochs = config.finetune.epochs = 1
  for network in config.networks.values():
    network.sizes = {'width': 8}
  config.measure.engines = ('jax', 'onnxruntime')
  config.measure.repeats = 5
  return config
