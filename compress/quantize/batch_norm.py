r"""Quantization-aware training of weights with folded norms.

In deployment a layer and the norm behind it are one, with the weight
$w \gamma / \sigma$. If channels share a step, quantizing w and multiplying by
the gain differs from quantizing the product, which is what integer kernels
use.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import tree
from compress.channels.sliced import Sliced
from compress.lowrank.factors import Factored
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Params, Path

SMALLEST = 1e-9  # lower bound of the magnitude of a gain, a divisor
SAME = 1e-5  # relative difference of gains that differ by rounding only


@struct.dataclass
class NodeWithGain(Compressed):
  """A weight and the gain of the norm behind it.

  Attributes:
    w: The weight `[..., channels]`, with or without the gain.
    gain: `[channels]`, not 0.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any
  gain: Array

  def freeze(self) -> Any:
    """Return the array, or this node around an inner node."""
    return self if tree.is_node(self.w) else self.decode()


@struct.dataclass
class LatentFolded(NodeWithGain):
  """A latent weight that is multiplied by the gain before quantization."""

  def decode(self) -> Array:
    """Return `w * gain`."""
    product: Array = self.w * self.gain
    return product


@struct.dataclass
class Folded(NodeWithGain):
  """A weight with its gain, divided by it since the norm multiplies again."""

  def decode(self) -> Array:
    """Return `w / gain`."""
    quotient: Array = self.w / self.gain
    return quotient

  def apply_mask(self, mask: Array) -> Any:
    """Return this node with 0 where `mask` is False, or None."""
    return self._around(self.w.apply_mask(mask))

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return this node among zeros along an axis, or None."""
    gain = self.gain
    if axis == len(self.w.shape) - 1:
      gain = tree.scattered(gain, keep, 0, size, fill=1)
    return self._around(self.w.scatter(keep, axis, size), gain=gain)

  def scale_channels(self, gain: Array) -> Any:
    """Return this node times `gain`; `w` if that is the gain it has."""
    if np.allclose(gain, self.gain, rtol=SAME, atol=2 * SMALLEST):
      return self.w
    return tree.scaled(self.w, gain / self.gain)

  def _around(self, w: Any, **changes: Any) -> Any:
    return None if w is None else self.replace(w=w, **changes)


def fold_batch_norm(method: Method) -> Method:
  r"""Quantize weights with the norms behind them folded in.

  $\hat w = Q(w g) / g$ with $g = \gamma / \sqrt{v + \epsilon}$ of the norm
  behind the layer and v its running variance, so that the deployed weight is
  $Q(w g)$ (Jacob+ 2018, arXiv 1712.05877, section 3.2, $w_{fold}$). In training
  the norm divides by the deviation of the batch, while the grid uses the
  running deviation and does not vary between batches (Krishnamoorthi 2018,
  arXiv 1806.08342, section 3.2.2). The latent w has no gain; gains are updated
  from the norm after each step. Once the statistics of the norm are frozen,
  they depend on $\gamma$ only.

  With a step per channel or group the result is that of `method`; with one
  step per tensor, the step and the clip ratio are those of the stored weight.

  Args:
    method: A method that quantizes weights, or a chain, as
      `quantize.uniform(4, per='tensor')`. If it has no latent float weights, as
      `quantize.gptq`, gains are fixed at the start.

  Returns:
    The method. It applies `method` unchanged to weights without a norm behind
    them.

  Raises:
    ValueError: If `method` is not a method, or no weight has a norm with known
      gains behind it.
  """
  where = 'quantize.fold_batch_norm'
  if not isinstance(method, Method):
    raise ValueError(
      f'{where}: expected a method, as {where}(quantize.uniform(4, '
      f"per='tensor')), got {method!r}."
    )

  def init(params: Params, ctx: Ctx) -> Params:
    gains = _gains(params, ctx.gains or {})
    if not gains:
      raise ValueError(
        f'{where}: expected weights with a norm behind them, got none among '
        f'{", ".join(tree.paths(params))}. Leave {where} out, or pass '
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
    gains = _gains(params, ctx.gains or {})

    def follow(path: Path, x: Folded) -> Folded:
      if path not in gains or not tree.find(LatentFolded, x):
        return x
      gain = _nonzero(gains[path], x.gain)
      inside = tree.map_nodes(
        LatentFolded, lambda _, y: y.replace(gain=gain), x.w
      )
      return x.replace(w=inside, gain=gain)

    return method.update(tree.map_nodes(Folded, follow, params), ctx)

  return method._replace(init=init, update=update)


def _gains(params: Params, gains: dict[Path, Array]) -> dict[Path, Array]:
  """Return the gains of the arrays or `Folded` nodes that have the channels."""
  found: dict[Path, Array] = {}
  for path, x in tree.paths(params).items():
    if path in gains:
      found |= _innermost(path, x, gains[path])
  return found


def _innermost(path: Path, x: Any, gain: Array) -> dict[Path, Array]:
  """Return the gain of the inner array with the channels, if there is one."""
  if not tree.is_node(x) or isinstance(x, Folded):
    return {path: gain}
  if isinstance(x, Factored):  # as a norm is folded into the last factor
    last = x.inner[-1]
    return _innermost(f'{path}/{last}', getattr(x, last), gain)
  if len(x.inner) != 1:
    return {}
  inside, shape = getattr(x, x.inner[0]), x.shape
  if isinstance(x, Sliced):
    gain = gain[x.keep] if x.axis == len(shape) - 1 else gain
  elif inside.shape != shape:  # values from which w is computed
    return {}
  return _innermost(path, inside, gain)


def _nonzero(gain: Array, like: Array) -> Array:
  """Return a gain by which one can divide, in the dtype of an array."""
  bounded = jnp.where(jnp.abs(gain) > SMALLEST, gain, SMALLEST)
  return bounded.astype(like.dtype)


def _latent(node: Folded) -> Folded:
  """Make the latent weight trainable without its gain, if it is one array."""
  shape = node.shape

  def visit(path: Path, x: Any) -> Any:
    if tree.is_node(x):
      return tree.descend(visit, path, x) if len(x.inner) == 1 else x
    return LatentFolded(x / node.gain, node.gain) if x.shape == shape else x

  return node.replace(w=visit('', node.w))
