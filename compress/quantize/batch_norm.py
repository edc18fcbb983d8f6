r"""Norms folded into weights before those meet a grid, in training too.

In use a layer and the norm right behind it are one: the weight is
$w \gamma / \sigma$. Where channels share a grid, w on the grid times the gain
is another array than the product on a grid of its own, which is what integers
compute with.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import tree
from compress.channels.sliced import Sliced
from compress.lowrank.factors import Factored
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Key, Params, Path

LEAST = 1e-9  # a gain nearer to 0 is this: products with it are divided again
SAME = 1e-5  # relative change of a gain that rounding of floats explains


@struct.dataclass
class Gained(Compressed):
  """A weight beside the gain of the norm right behind it.

  Attributes:
    w: The weight, without the gain or times it, `[..., channels]`.
    gain: `[channels]`, not 0.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  gain: Array

  def freeze(self) -> Any:
    """Return the array, where nothing smaller is inside."""
    return self if tree.is_node(self.w) else self.decode(None)


@struct.dataclass
class Folding(Gained):
  """A latent weight that is multiplied by the gain: what meets the grid."""

  def decode(self, key: Key | None) -> Array:
    """Return `w * gain`."""
    del key
    product: Array = self.w * self.gain
    return product


@struct.dataclass
class Folded(Gained):
  """A weight times the gain, divided by it since the norm multiplies again."""

  def decode(self, key: Key | None) -> Array:
    """Return `w / gain`."""
    del key
    quotient: Array = self.w / self.gain
    return quotient

  def apply_mask(self, mask: Array) -> Any:
    """Return this node, 0 where `mask` is False, if what is in it can be."""
    return self._around(self.w.apply_mask(mask))

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return this node among zeros along an axis, if what is in it can be."""
    gain = self.gain
    if axis == len(tree.shape_of(self.w)) - 1:
      gain = tree.scattered(gain, keep, 0, size, fill=1)
    return self._around(self.w.scatter(keep, axis, size), gain=gain)

  def scale_channels(self, gain: Array) -> Any:
    """Return this node times `gain`: without its own if they are the same."""
    if np.allclose(gain, self.gain, rtol=SAME, atol=2 * LEAST):
      return self.w
    return tree.scaled(self.w, gain / self.gain)

  def _around(self, w: Any, **changes: Any) -> Any:
    return None if w is None else self.replace(w=w, **changes)


def fold_batch_norm(method: Method) -> Method:
  r"""Quantize weights as they are once their norms are folded into them.

  $\hat w = Q(w g) / g$ with $g = \gamma / \sqrt{v + \epsilon}$ of the norm
  right behind, v its running variance: what is lowered is $Q(w g)$ itself
  (Jacob+ 2018, arXiv 1712.05877, section 3.2, $w_{fold}$). The norm stays in
  training: it divides by the deviation of the batch, while the grid sees the
  running one and does not jitter with batches (Krishnamoorthi 2018, arXiv
  1806.08342, section 3.2.2). w is trained as without gains, which follow the
  norm after each step; hold its statistics for the last part of a run, and
  they follow $\gamma$ alone.

  With a step for each channel or group the method does the same alone; with
  one a tensor, grids and clips are of what is stored, in one step a tensor.

  Args:
    method: What puts weights on grids, or a chain, as `quantize.uniform(4,
      per='tensor')`. Where it leaves no float weight to train, as
      `quantize.gptq`, gains stay those of the start.

  Returns:
    The method. Weights without a norm right behind them are as under `method`.

  Raises:
    ValueError: If `method` is none, gains are not known, or no weight has a
      norm right behind it.
  """
  where = 'quantize.fold_batch_norm'
  if not isinstance(method, Method):
    raise ValueError(
      f'{where}: expected a method, as {where}(quantize.uniform(4, '
      f"per='tensor')), got {method!r}."
    )

  def init(params: Params, ctx: Ctx) -> Params:
    gains = _reached(params, ctx.gains or {})
    if not gains:
      raise ValueError(
        f'{where}: expected weights with a norm right behind them, got none '
        f'among {", ".join(tree.paths(params))}. Leave {where} out, or pass '
        'Ctx(gains=...).'
      )

    def fold(path: Path, w: Array) -> Any:
      if path not in gains:
        return w
      gain = _nonzero(gains[path], w)
      return Folded(w * gain, gain)

    nodes = method.init(tree.map_arrays(fold, params), ctx)
    return tree.map_nodes(Folded, lambda _, x: _latent(x), nodes)

  def update(params: Params, ctx: Ctx) -> Params:
    gains = _reached(params, ctx.gains or {})

    def follow(path: Path, x: Folded) -> Folded:
      if path not in gains or not tree.find(Folding, x):
        return x
      gain = _nonzero(gains[path], x.gain)
      inside = tree.map_nodes(Folding, lambda _, y: y.replace(gain=gain), x.w)
      return x.replace(w=inside, gain=gain)

    return method.update(tree.map_nodes(Folded, follow, params), ctx)

  return method._replace(init=init, update=update)


def _reached(params: Params, gains: dict[Path, Array]) -> dict[Path, Array]:
  """Return the gains of the arrays or `Folded` nodes that make channels."""
  found: dict[Path, Array] = {}
  for path, x in tree.paths(params).items():
    if path in gains:
      found |= _innermost(path, x, gains[path])
  return found


def _innermost(path: Path, x: Any, gain: Array) -> dict[Path, Array]:
  """Return the gain of what makes the channels of a weight, if it is known."""
  if not tree.is_node(x) or isinstance(x, Folded):
    return {path: gain}
  if isinstance(x, Factored):  # as a norm is folded into the last factor
    last = x.inner[-1]
    return _innermost(f'{path}/{last}', getattr(x, last), gain)
  if len(x.inner) != 1:
    return {}
  inside, shape = getattr(x, x.inner[0]), tree.shape_of(x)
  if isinstance(x, Sliced):
    gain = gain[x.keep] if x.axis == len(shape) - 1 else gain
  elif tree.shape_of(inside) != shape:  # what a weight is made from
    return {}
  return _innermost(path, inside, gain)


def _nonzero(gain: Array, like: Array) -> Array:
  """Return a gain that can be divided by, of the type of an array."""
  apart = jnp.where(jnp.abs(gain) > LEAST, gain, LEAST)
  return apart.astype(like.dtype)


def _latent(node: Folded) -> Folded:
  """Train the weight without its gain, if it is there as one array."""
  shape = tree.shape_of(node)

  def visit(path: Path, x: Any) -> Any:
    if tree.is_node(x):
      return tree.descend(visit, path, x) if len(x.inner) == 1 else x
    return Folding(x / node.gain, node.gain) if x.shape == shape else x

  return node.replace(w=visit('', node.w))
