"""Networks of many frameworks, none of which knows of compression.

`python -m tests.frameworks [--only=REGEX]` compresses every one by every kind
of method, for three steps in a training loop of optax, and prints a table.
"""

import argparse
import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import compress
from compress import tree

CLASSES, TOKENS, LENGTH, SIDE, EXAMPLES = 3, 11, 5, 8, 8


class Model(NamedTuple):
  """A network as a pure function.

  Attributes:
    apply: `(params, *inputs)` -> logits `[examples, classes]`.
    params: Any tree of arrays.
    inputs: Of `EXAMPLES` examples.
  """

  apply: Callable[..., Any]
  params: Any
  inputs: tuple[Any, ...]

  def loss(self, params: Any, batch: Any) -> Any:
    """Return the mean cross entropy, and what distillation compares."""
    inputs, labels, teacher = batch
    logits = self.apply(params, *inputs).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), compress.Batch(inputs, labels, logits, teacher)

  def batch(self) -> Any:
    """Return the inputs, labels and the outputs of a teacher."""
    labels = jnp.arange(EXAMPLES) % CLASSES
    return self.inputs, labels, 3 * jax.nn.one_hot(labels, CLASSES)


def images(channels: int = 1) -> jax.Array:
  """Return random images."""
  shape = (EXAMPLES, SIDE, SIDE, channels)
  return jnp.float32(np.random.default_rng(0).normal(size=shape))


def series() -> jax.Array:
  """Return random sequences of vectors."""
  shape = (EXAMPLES, LENGTH, 6)
  return jnp.float32(np.random.default_rng(1).normal(size=shape))


def tokens() -> jax.Array:
  """Return random sequences of tokens."""
  drawn = np.random.default_rng(2).integers(0, TOKENS, (EXAMPLES, LENGTH))
  return jnp.asarray(drawn, jnp.int32)


class Convolutional(nn.Module):
  """A residual, a concatenation, depthwise filters and two norms."""

  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of images."""
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = nn.relu(nn.Conv(8, (3, 3), name='stem', **types)(x))
    y = nn.Conv(8, (3, 3), feature_group_count=8, name='depth', **types)(x)
    y = nn.relu(nn.BatchNorm(True, name='norm', **types)(y))
    y = nn.Conv(8, (1, 1), name='point', **types)(y)
    x = nn.relu(x + y)
    side = nn.relu(nn.Conv(4, (3, 3), strides=2, name='side', **types)(x))
    other = nn.relu(nn.Conv(4, (1, 1), strides=2, name='other', **types)(x))
    x = jnp.concatenate([side, other], axis=-1)
    x = nn.GroupNorm(2, name='groups', **types)(x)
    x = nn.relu(nn.Conv(8, (3, 3), name='last', **types)(x))
    return nn.Dense(CLASSES, name='head', **types)(x.mean((1, 2)))


class Attention(nn.Module):
  """A transformer whose output layer is its embedding."""

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    """Return logits of sequences of tokens."""
    embed = nn.Embed(TOKENS, 8, name='embed')
    place = self.param('place', nn.initializers.normal(0.1), (LENGTH, 8))
    x = embed(ids) + place
    y = nn.LayerNorm(name='norm1')(x)
    x = x + nn.MultiHeadDotProductAttention(2, name='attention')(y, y)
    y = nn.gelu(nn.Dense(16, name='up')(nn.LayerNorm(name='norm2')(x)))
    x = x + nn.Dense(8, name='down')(y)
    return embed.attend(x).mean(1)[:, :CLASSES]


class Lookup(nn.Module):
  """The mean of the embeddings of tokens, classified."""

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    """Return logits of sequences of tokens."""
    x = nn.Embed(TOKENS, 8, name='embed')(ids).mean(1)
    x = nn.relu(nn.Dense(8, name='hidden')(x))
    x = nn.relu(nn.Dense(8, name='second')(x))
    return nn.Dense(CLASSES, name='head')(x)


class Recurrent(nn.Module):
  """A recurrent layer and a dense one."""

  cell: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of sequences of vectors."""
    x = nn.RNN(self.cell(6, name='cell'), name='rnn')(x)
    return nn.Dense(CLASSES, name='head')(x[:, -1])


class UNet(nn.Module):
  """Down and up again, with a skip connection."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of images."""
    x = nn.relu(nn.Conv(4, (3, 3), name='first')(x))
    y = nn.relu(nn.Conv(8, (3, 3), strides=2, name='down')(x))
    y = nn.relu(nn.ConvTranspose(4, (2, 2), (2, 2), name='up')(y))
    x = jnp.concatenate([x, y], axis=-1)
    return nn.Conv(CLASSES, (1, 1), name='head')(x).mean((1, 2))


class Layer(nn.Module):
  """A dense layer as `nn.scan` takes it."""

  @nn.compact
  def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
    """Return the outputs to be carried on."""
    return x + nn.relu(nn.Dense(6, name='fc')(x)), None


class Scanned(nn.Module):
  """Layers of one kind under `nn.scan`, rematerialized."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of vectors."""
    layers = nn.scan(
      nn.remat(Layer),
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=3,
    )
    x, _ = layers(name='layers')(x.mean(1), None)
    return nn.Dense(CLASSES, name='head')(x)


class Rematerialized(nn.Module):
  """Two rematerialized layers."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of vectors."""
    x = nn.relu(nn.remat(nn.Dense)(8, name='first')(x.mean(1)))
    x = nn.relu(nn.remat(nn.Dense)(8, name='second')(x))
    return nn.Dense(CLASSES, name='head')(x)


class Partitioned(nn.Module):
  """Layers whose kernels say how they are sharded."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of vectors."""
    init = nn.initializers.lecun_normal()
    sharded = nn.with_partitioning(init, (None, 'model'))
    x = nn.relu(nn.Dense(8, kernel_init=sharded, name='first')(x.mean(1)))
    x = nn.relu(nn.Dense(8, kernel_init=sharded, name='second')(x))
    return nn.Dense(CLASSES, name='head')(x)


class Ensemble(nn.Module):
  """Several heads under `nn.vmap`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the mean of the logits of vectors."""
    x = nn.relu(nn.Dense(8, name='first')(x.mean(1)))
    heads = nn.vmap(
      nn.Dense,
      in_axes=None,
      out_axes=0,
      axis_size=2,
      variable_axes={'params': 0},
      split_rngs={'params': True},
    )
    return heads(CLASSES, name='heads')(x).mean(0)


class Shared(nn.Module):
  """One layer that is applied twice."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of vectors."""
    shared = nn.Dense(6, name='shared')
    x = nn.relu(shared(nn.relu(shared(x.mean(1)))))
    return nn.Dense(CLASSES, name='head')(x)


class NnxConvolutional(nnx.Module):
  """Two convolutions with a norm, and a dense layer."""

  def __init__(self) -> None:
    """Draw the weights."""
    rngs = nnx.Rngs(0)
    self.first = nnx.Conv(1, 8, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
    self.second = nnx.Conv(8, 8, (3, 3), strides=2, rngs=rngs)
    self.head = nnx.Linear(8, CLASSES, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of images."""
    x = nnx.relu(self.norm(self.first(x)))
    x = nnx.relu(self.second(x))
    return self.head(x.mean((1, 2)))


class NnxAttention(nnx.Module):
  """A block of a transformer."""

  def __init__(self) -> None:
    """Draw the weights."""
    rngs = nnx.Rngs(0)
    self.norm = nnx.LayerNorm(6, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, 6, rngs=rngs, decode=False)
    self.up = nnx.Linear(6, 12, rngs=rngs)
    self.down = nnx.Linear(12, 6, rngs=rngs)
    self.head = nnx.Linear(6, CLASSES, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of sequences of vectors."""
    x = x + self.attention(self.norm(x))
    x = x + self.down(nnx.gelu(self.up(x)))
    return self.head(x.mean(1))


def linen(module: nn.Module, x: jax.Array) -> Model:
  """Return a Flax Linen module as a function."""
  variables = jax.jit(module.init)(jax.random.key(0), x)

  def apply(params: Any, x: jax.Array) -> Any:
    return module.apply({**variables, 'params': params}, x)

  return Model(apply, variables['params'], (x,))


def of_nnx(module: Any, x: jax.Array) -> Model:
  """Return an NNX module as a function."""
  graph, params, rest = nnx.split(module, nnx.Param, ...)
  return Model(lambda p, x: nnx.merge(graph, p, rest)(x), params, (x,))


def of_equinox(module: Any, x: jax.Array) -> Model:
  """Return an Equinox module as a function."""
  params, static = eqx.partition(module, eqx.is_array)
  return Model(lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, (x,))


def equinox_mlp() -> Model:
  """Return a perceptron whose kernels are `[outputs, inputs]`."""
  mlp = eqx.nn.MLP(30, CLASSES, 8, 2, key=jax.random.key(0))
  return of_equinox(mlp, series().reshape(EXAMPLES, -1))


def equinox_conv() -> Model:
  """Return a convolutional network with channels first."""
  keys = jax.random.split(jax.random.key(0), 3)
  layers = [
    eqx.nn.Conv2d(1, 8, 3, key=keys[0]),
    eqx.nn.Lambda(jax.nn.relu),
    eqx.nn.Conv2d(8, 8, 3, stride=2, key=keys[1]),
    eqx.nn.Lambda(jax.nn.relu),
    eqx.nn.Lambda(jnp.ravel),
    eqx.nn.Linear(32, CLASSES, key=keys[2]),
  ]
  return of_equinox(eqx.nn.Sequential(layers), images().transpose(0, 3, 1, 2))


def plain() -> Model:
  """Return functions of nested lists, with kernels in every layout."""
  drawn = np.random.default_rng(3)
  draw = lambda *shape: jnp.float32(0.5 * drawn.normal(size=shape))  # noqa: E731
  params = [
    {'w': draw(6, 8), 'b': draw(8)},
    [draw(7, 8), draw(7)],
    (draw(7, CLASSES),),
  ]

  def apply(params: Any, x: jax.Array) -> jax.Array:
    first, (second, bias), (last,) = params
    x = jax.nn.relu(x.mean(1) @ first['w'] + first['b'])
    x = jnp.tanh(jnp.einsum('oi,bi->bo', second, x) + bias)
    return jnp.einsum('bi,io->bo', x, last)

  return Model(apply, params, (series(),))


BFLOAT = jnp.bfloat16
_MODELS: dict[str, Callable[[], Model]] = {
  'Linen CNN': lambda: linen(Convolutional(), images()),
  'Linen transformer': lambda: linen(Attention(), tokens()),
  'embedding': lambda: linen(Lookup(), tokens()),
  'LSTM': lambda: linen(Recurrent(nn.OptimizedLSTMCell), series()),
  'GRU': lambda: linen(Recurrent(nn.GRUCell), series()),
  'U-Net': lambda: linen(UNet(), images()),
  'nn.scan': lambda: linen(Scanned(), series()),
  'nn.remat': lambda: linen(Rematerialized(), series()),
  'nn.vmap': lambda: linen(Ensemble(), series()),
  'shared layer': lambda: linen(Shared(), series()),
  'NNX CNN': lambda: of_nnx(NnxConvolutional(), images()),
  'NNX transformer': lambda: of_nnx(NnxAttention(), series()),
  'Equinox MLP': equinox_mlp,
  'Equinox conv': equinox_conv,
  'plain functions': plain,
  'all bfloat16': lambda: linen(Convolutional(BFLOAT, BFLOAT), images()),
  'mixed': lambda: linen(Convolutional(BFLOAT), images()),
  'partitioned': lambda: linen(Partitioned(), series()),
}
MODELS = {name: functools.cache(make) for name, make in _MODELS.items()}
# One of each kind, where a test of all takes minutes.
FEW = ('Linen CNN', 'LSTM', 'NNX CNN', 'Equinox MLP', 'plain functions')


def slow_but_few(cells: Iterable[tuple[str, str]]) -> list[Any]:
  """Return pairs of a network and a recipe; those not of `FEW` are slow."""
  slow = pytest.mark.slow
  return [
    pytest.param(*cell, marks=() if cell[0] in FEW else slow) for cell in cells
  ]


METHODS: dict[str, str] = {
  'prune': 'prune.weights(0.5)',
  'int8': 'quantize.int8()',
  'LSQ 4/4': 'quantize.lsq(4, 4)',
  'binary inputs': 'binary.bnn(ends=False)',
  'SVD': 'lowrank.svd(2)',
  'k-means': 'share.kmeans(4)',
  'filters': 'prune.filters(share=0.5, multiple=1)',
  'KD': 'distill.kd(4.0)',
  'lc': 'lc(prune.weights(0.5), rounds=2)',
  'gptq': 'quantize.gptq(4, 8)',
  'obs': 'prune.obs(0.5)',
}


class Result(NamedTuple):
  """A network after some steps under a method."""

  probe: compress.Probe
  before: Any
  params: Any
  losses: list[float]


@functools.cache
def probed(name: str) -> tuple[Model, compress.Probe]:
  """Return a network and its probe."""
  model = MODELS[name]()
  probe = compress.probe(
    model.apply, model.params, model.inputs, model.loss, model.batch()
  )
  return model, probe


def train(name: str, text: str, steps: int = 3) -> Result:
  """Train a network under a method as a user would."""
  model, probe = probed(name)
  method, key = compress.parse(text), jax.random.key(1)
  params = compress.init(method, model.params, probe, steps=steps, key=key)
  before, batch = params, model.batch()
  tx = optax.adam(1e-2)
  opt = tx.init(compress.trainable(params))
  slope = compress.value_and_grad(model.loss, method, has_aux=True)

  @jax.jit
  def step(params: Any, opt: Any, i: Any) -> Any:
    run = {'step': i, 'steps': steps, 'key': jax.random.fold_in(key, i)}
    (value, _), grads = slope(params, batch, **run)
    updates, opt = tx.update(grads.trainable, opt, compress.trainable(params))
    params = compress.update(method, params, updates, grads, **run)
    return params, opt, value

  losses = []
  for i in range(steps):
    params, opt, value = step(params, opt, i)
    losses.append(float(value))
  return Result(probe, before, params, losses)


def check(name: str, text: str) -> str:
  """Return '' if a network was compressed, else why not."""
  model, _ = probed(name)
  try:
    found = train(name, text)
  except ValueError as e:
    return str(e)
  if not np.isfinite(found.losses).all():
    return f'losses {found.losses}'
  dense = compress.decode(compress.freeze(found.params))
  for path, x in tree.paths(model.params).items():
    y = tree.paths(dense)[path]
    if (x.shape, x.dtype) != (y.shape, y.dtype):
      return f'{path}: {x.shape} {x.dtype} became {y.shape} {y.dtype}'
  nodes = [x for x in tree.paths(found.params).values() if tree.is_node(x)]
  if not nodes and 'kd' not in text:
    return 'nothing was changed'
  y = compress.apply(model.apply, compress.freeze(found.params), *model.inputs)
  return '' if bool(jnp.isfinite(y).all()) else 'outputs are not finite'


def main(args: Sequence[str] | None = None) -> None:
  """Print the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='.*', help='which networks')
  parser.add_argument('--methods', default='.*', help='which methods')
  given = parser.parse_args(args)
  chosen = {k: x for k, x in METHODS.items() if re.search(given.methods, k)}
  print('| |', ' | '.join(chosen), '|')
  print('|---|', '---|' * len(chosen), sep='')
  reasons = []
  for name in MODELS:
    if not re.search(given.only, name):
      continue
    cells = []
    for short, text in chosen.items():
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        why = check(name, text)
      cells.append('' if why else 'works')
      if why:
        reasons.append(f'{name}, {short}: {why}')
        cells[-1] = f'[{len(reasons)}]'
    print(f'| {name} |', ' | '.join(cells), '|', flush=True)
  print()
  for i, reason in enumerate(reasons, 1):
    print(f'{i}. {reason}')


if __name__ == '__main__':
  sys.exit(main())
