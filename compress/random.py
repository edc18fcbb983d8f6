"""Random numbers that are cheap to compile."""

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax

from compress.tree import Array, Key, Path


def own(key: Key, path: Path) -> Key:
  """Return the key of one weight."""
  return jax.random.fold_in(key, zlib.crc32(path.encode()))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def draw(
  sampler: Callable[..., Array], key: Key, shape: tuple[int, ...], *args: Any
) -> Array:
  """Draw an array along one axis, and reshape it.

  XLA unrolls the hash of every number of a short inner axis: compiling the
  kernel of a small convolution takes a second that way and a tenth of it this
  way, with the same numbers.

  Args:
    sampler: Such as `jax.random.normal`.
    key: Of the numbers.
    shape: Of the array.
    *args: Arguments of the sampler after the shape.

  Returns:
    `sampler(key, shape, *args)`.

  >>> draw(jax.random.normal, jax.random.key(0), (3, 3, 1, 4)).shape
  (3, 3, 1, 4)
  """
  return sampler(key, (math.prod(shape),), *args).reshape(shape)
