"""Networks of somebody else, as `settings.network('module:function')` takes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class Residual(nn.Module):
  """A residual network with two kinds of norms."""

  outputs: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Return logits of images."""
    x = nn.Conv(self.width, (3, 3), name='stem')(x)
    y = nn.relu(nn.BatchNorm(not train, name='batch')(x))
    y = nn.Conv(self.width, (3, 3), name='inner')(y)
    x = nn.relu(nn.GroupNorm(2, name='groups')(x + y))
    x = nn.max_pool(x, (2, 2), (2, 2))
    x = nn.Dropout(0.1, deterministic=not train)(x.reshape(len(x), -1))
    return nn.Dense(self.outputs, name='head')(x)


def residual(shape: Any, outputs: int, width: int = 8) -> nn.Module:
  """Return a Linen module."""
  return Residual(outputs, width)


class Transformer(nn.Module):
  """A tiny transformer over the rows of images, as over sensor windows."""

  outputs: int

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """Return logits."""
    x = nn.Dense(16, name='embed')(x.reshape(*x.shape[:2], -1))
    y = nn.LayerNorm(name='norm1')(x)
    y = nn.MultiHeadDotProductAttention(
      2, dropout_rate=0.1, deterministic=deterministic, name='attention'
    )(y, y)
    x = x + y
    y = nn.gelu(nn.Dense(32, name='up')(nn.LayerNorm(name='norm2')(x)))
    x = x + nn.Dense(16, name='down')(y)
    return nn.Dense(self.outputs, name='head')(x.mean(1))


def transformer(shape: Any, outputs: int) -> nn.Module:
  """Return a Linen module."""
  return Transformer(outputs)


class Recurrent(nn.Module):
  """An LSTM over the rows of images."""

  outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits."""
    x = x.reshape(*x.shape[:2], -1)
    x = nn.RNN(nn.OptimizedLSTMCell(16, name='cell'), name='rnn')(x)
    return nn.Dense(self.outputs, name='head')(x[:, -1])


def recurrent(shape: Any, outputs: int) -> nn.Module:
  """Return a Linen module."""
  return Recurrent(outputs)


class Perceptron(nnx.Module):
  """A perceptron with a norm."""

  def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
    """Draw the weights."""
    self.first = nnx.Linear(inputs, 32, rngs=rngs)
    self.norm = nnx.BatchNorm(32, rngs=rngs)
    self.drop = nnx.Dropout(0.1, rngs=rngs)
    self.head = nnx.Linear(32, outputs, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits."""
    x = self.norm(self.first(x.reshape(len(x), -1)))
    return self.head(self.drop(nnx.relu(x)))


def perceptron(shape: Any, outputs: int, rngs: nnx.Rngs) -> nnx.Module:
  """Return an NNX module."""
  return Perceptron(shape[0] * shape[1] * shape[2], outputs, rngs)


def linear(shape: Any, outputs: int, scale: float = 0.1) -> Any:
  """Return a pair of functions."""

  def init(key: jax.Array, x: jax.Array) -> Any:
    flat = x.reshape(len(x), -1).shape[1]
    w = scale * jax.random.normal(key, (flat, outputs))
    return {'w': w, 'b': jnp.zeros(outputs)}

  def apply(params: Any, x: jax.Array) -> jax.Array:
    y: jax.Array = x.reshape(len(x), -1) @ params['w'] + params['b']
    return y

  return init, apply


def turned(shape: Any, outputs: int) -> Any:
  """Return a pair of functions whose kernels are `[outputs, inputs]`."""

  def init(key: jax.Array, x: jax.Array) -> Any:
    sizes = (x[0].size, 8, 6, outputs)
    keys = jax.random.split(key, 3)
    return {
      f'layer{i}': {'w': jax.random.normal(keys[i], (sizes[i + 1], sizes[i]))}
      for i in range(3)
    }

  def apply(params: Any, x: jax.Array) -> jax.Array:
    y = x.reshape(len(x), -1)
    for i in range(2):
      y = jax.nn.relu(jnp.einsum('oi,bi->bo', params[f'layer{i}']['w'], y))
    logits: jax.Array = jnp.einsum('oi,bi->bo', params['layer2']['w'], y)
    return logits

  return init, apply


def wrong(shape: Any, outputs: int) -> nn.Module:
  """Return a module with other outputs."""
  return nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(outputs + 1)])


class Plain(nn.Module):
  """Convolutions with batch norms, whose channels can go."""

  outputs: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Return logits of images."""
    for i, width in enumerate((8, 16)):
      x = nn.Conv(width, (3, 3), strides=2, name=f'conv{i}')(x)
      x = nn.relu(nn.BatchNorm(not train, name=f'norm{i}')(x))
    return nn.Dense(self.outputs, name='head')(x.reshape(len(x), -1))


def plain(shape: Any, outputs: int) -> nn.Module:
  """Return a Linen module."""
  return Plain(outputs)
