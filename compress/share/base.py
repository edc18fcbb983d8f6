"""The common part of methods that share weights."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.prune.masked import Masked
from compress.tree import Array, Params, Path

# Path, weight, mask of the entries that count (None is all), context -> node.
Share: TypeAlias = Callable[[Path, Array, Array | None, Ctx], Any]

WIDE = 2**16  # as many codes as a 16-bit index has


def sharing(where: str, share: Share) -> Method:
  """Return the method that replaces each weight by a node.

  Args:
    where: Its name, for errors.
    share: Makes the node.

  Returns:
    The method.
  """

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.CODEBOOK, params)

    def visit(path: Path, x: Any, mask: Array | None) -> Any:
      if tree.is_node(x):
        mask = x.mask if isinstance(x, Masked) else mask
        return tree.descend(lambda p, y: visit(p, y, mask), path, x)
      if not tree.is_weight(x):
        return x
      own = mask if mask is not None and mask.shape == x.shape else None
      return tree.in_32_bits(lambda w: share(path, w, own, ctx), x)

    return tree.map_paths(lambda path, x: visit(path, x, None), params)

  return Method(init)


def expect_count(where: str, what: str, n: Any) -> None:
  """Check a count.

  Raises:
    ValueError: If it is not an integer from 1.
  """
  if type(n) is not int or n < 1:
    raise ValueError(f'{where}: expected {what} from 1, got {n!r}.')


def index_dtype(codes: int) -> Any:
  """Return the smallest unsigned type that numbers the codes."""
  return jnp.uint8 if codes <= 2**8 else jnp.uint16
