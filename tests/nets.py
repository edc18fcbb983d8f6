"""Tiny networks whose channels are wired in every way, and their groups."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import compress
from compress.channels import dependency
from compress.channels.dependency import Group
from compress.dataflow import Site
from compress.method import Probe
from compress.tree import Path
from tests.runs import NETWORKS, calibrated, start
from tsukiji.models import spec as sp
from tsukiji.models.spec import Act, Branch, Conv, Dense, GlobalMean, Norm


def conv(name: str, features: int = 4, **sizes: Any) -> Conv:
  """Return a convolution that keeps the sides."""
  sizes = {'kernel': (3, 3), 'padding': 'SAME'} | sizes
  return Conv(name=name, features=features, **sizes)


def net(name: str, *layers: sp.Layer, channels: int = 1) -> sp.Spec:
  """Return a network with a mean and a dense layer behind the layers."""
  end = (GlobalMean(), Dense(name='fc', features=3))
  shape = (6, 6, channels)
  return sp.Spec(name=name, input_shape=shape, layers=(*layers, *end))


PAIR = sp.Spec(
  name='pair',
  input_shape=(4, 4, 1),
  layers=(
    sp.Conv(name='conv', features=4, kernel=(3, 3)),
    sp.Act(),
    sp.Pool(),
    sp.Flatten(),
    sp.Dense(name='mid', features=5),
    sp.Act(),
    sp.Dense(name='fc', features=3),
  ),
)
SEPARABLE = net(
  'separable',
  conv('wide'),
  Act(),
  conv('depth', groups=4),
  Norm(name='norm'),
  Act(fn='tanh'),
  conv('point', 6, kernel=(1, 1)),
  Act(),
)
CONCAT = net(
  'concat',
  conv('stem'),
  Act(),
  Branch(
    paths=(
      (conv('left', 4), Act()),
      (conv('right', 6), Norm(name='right_norm')),
    ),
    merge='concat',
  ),
  Norm(name='norm'),
  Act(),
  conv('mix'),
  Act(),
)
PLAIN = net('plain', conv('one'), Act(), conv('two', 6), Act(fn='tanh'))
SPECS = {**NETWORKS, 'separable': SEPARABLE, 'concat': CONCAT, 'plain': PLAIN}


@functools.cache
def groups(spec: sp.Spec) -> tuple[Group, ...]:
  """Return the groups of a network, found once."""
  requested = calibrated(spec).probe
  assert requested is not None
  return tuple(
    dependency.groups(
      requested.apply, start(spec)['params'], requested.examples
    )
  )


def sites_with(uses: Mapping[Path, int]) -> dict[Path, Site]:
  """Return sites of weights that are used some number of times."""
  return {path: Site('dot', uses=count) for path, count in uses.items()}


def probe_with(**fields: Any) -> Probe:
  """Return a probe that knows nothing but what is given."""
  asked = ('apply', 'examples', 'loss', 'grad', 'reduce')
  return Probe(**(dict.fromkeys(asked) | {'sites': {}} | fields))


class Own(nn.Module):
  """A network that is no spec: a residual, a concatenation, `tanh`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return three logits."""
    x = jnp.tanh(nn.Conv(4, (3, 3), name='stem')(x))
    y = nn.Conv(4, (3, 3), name='body')(x)
    x = jnp.tanh(nn.BatchNorm(True, name='norm')(x + y))
    side = jnp.tanh(nn.Conv(6, (1, 1), name='side')(x))
    x = jnp.concatenate([x, side], -1)
    x = x.reshape(len(x), -1)
    x = nn.swish(nn.Dense(8, name='hidden')(x))
    return nn.Dense(3, name='head')(x)


@functools.cache
def module(
  network: nn.Module, channels: int = 1
) -> tuple[dict[str, Any], Probe]:
  """Return the variables of a Flax module and its probe."""
  drawn = np.random.default_rng(0)
  x = jnp.float32(drawn.normal(size=(8, 5, 5, channels)))
  y = jnp.arange(8) % 3
  variables = network.init(jax.random.key(0), x)
  variables = jax.tree.map(
    lambda a: a + jnp.float32(drawn.uniform(0.1, 0.3, a.shape)), variables
  )

  def apply(params: Any, x: jax.Array) -> jax.Array:
    logits: Any = network.apply({**variables, 'params': params}, x)
    return logits

  def loss(params: Any, batch: Any) -> jax.Array:
    logits = apply(params, batch[0])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return jnp.mean(losses)

  found = compress.probe(apply, variables['params'], x, loss, (x, y))
  return variables, found
