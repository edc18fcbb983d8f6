"""What a weight is worth: an array -> an array of scores, high is kept."""

import zlib
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from compress.method import Ctx
from compress.tree import Array, Path

Score: TypeAlias = Callable[[Path, Array, Ctx], Array]


def magnitude(path: Path, w: Array, ctx: Ctx) -> Array:
  """Score by size, |w| (Han+ 2015, arXiv 1506.02626)."""
  del path, ctx
  return jnp.abs(w)


def random(path: Path, w: Array, ctx: Ctx) -> Array:
  """Score by chance: the control that every other score has to beat."""
  if ctx.key is None:
    raise ValueError(
      f'score.random at {path}: expected a key in the context, got None. '
      'Pass Ctx(key=jax.random.key(seed)).'
    )
  key = jax.random.fold_in(ctx.key, zlib.crc32(path.encode()))
  return jax.random.uniform(key, w.shape)


SCORES: dict[str, Score] = {'magnitude': magnitude, 'random': random}
