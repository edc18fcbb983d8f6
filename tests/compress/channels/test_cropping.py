"""Small inputs: what structure is kept, and where nothing can be cut."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from compress.channels import cropping, dependency
from compress.tree import Array

X = jnp.ones((4, 64, 64, 3))


def strided(x: Array) -> Array:
  """Halve the sides twice, rounding up, and average what is left."""
  for _ in range(2):
    x = nn.max_pool(x, (2, 2), (2, 2), 'SAME')
  return x.mean((1, 2))


def flattened(x: Array) -> Array:
  """Multiply by a matrix for 64 by 64 pixels."""
  return x.reshape(len(x), -1) @ jnp.ones((64 * 64 * 3, 2))


def halved(x: Array) -> Array:
  """Add what was pooled to multiples of 4 pixels and repeated."""
  small = nn.avg_pool(x, (4, 4), (4, 4))
  return (x + small.repeat(4, 1).repeat(4, 2)).mean((1, 2))


def normalized(x: Array) -> Array:
  """Normalize over pixels, which hides a single one."""
  return (x - x.mean((1, 2), keepdims=True)).sum((1, 2))


def picky(x: Array) -> Array:
  """Take one shape only."""
  assert x.shape == X.shape
  return x


@pytest.mark.parametrize(
  ('network', 'want'),
  [
    (strided, (1, 5, 5, 3)),  # 5, 3, 2: with 4 pixels one is left
    (flattened, (1, 64, 64, 3)),
    (halved, (1, 8, 8, 3)),
    (normalized, (1, 2, 2, 3)),
    (picky, X.shape),
  ],
)
def test_the_smallest_input_keeps_the_structure(
  network: Any, want: tuple[int, ...]
) -> None:
  crop = cropping.smallest(lambda crop: network(crop(X)))
  assert crop(X).shape == want


def test_tokens_keep_their_length() -> None:
  tokens = jnp.ones((4, 7), int)
  crop = cropping.smallest(lambda crop: jnp.ones((9, 2))[crop(tokens)].sum(1))
  assert crop(tokens).shape == (1, 7)


TRACED: list[tuple[int, ...]] = []


class Strided(nn.Module):
  """A network for any size that records the inputs it is traced with."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Return two logits."""
    TRACED.append(x.shape)
    x = nn.relu(nn.Conv(4, (3, 3), 2, name='stem')(x))
    x = nn.relu(nn.Conv(5, (3, 3), 2, name='body')(x))
    return nn.Dense(2, name='head')(x.mean((1, 2)))


@pytest.mark.slow
def test_dependencies_are_found_on_the_smallest_input() -> None:
  network = Strided()
  params = network.init(jax.random.key(0), X)['params']
  found = dependency.groups(
    lambda params, x: network.apply({'params': params}, x), params, (X,)
  )
  assert [(g.name, g.channels) for g in found] == [('stem', 4), ('body', 5)]
  assert TRACED[-1] == (1, 5, 5, 3)
