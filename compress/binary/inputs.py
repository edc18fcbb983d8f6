"""Binary layer inputs: signs."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.binary.straight_through import SIGNS
from compress.errors import expect_name
from compress.method import Ctx, Method, expect_probe, has_input
from compress.tree import Array, Compressed, Mean, Params, Path


@struct.dataclass
class Signed(Compressed):
  """A weight that multiplies the signs of its layer's input.

  Attributes:
    w: The weight `[..., inputs, channels]`.
    threshold: Threshold of the sign for each channel, `[inputs]`, or None for
      0. The groups of a convolution share it.
    gradient: A name in `straight_through.SIGNS`.
    sized: Whether each output is multiplied by the mean magnitude of its
      inputs.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'threshold')
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.INPUT_SIGNS
  input_bits: ClassVar[int] = 1

  w: Any
  threshold: Array | None
  gradient: str = struct.field(pytree_node=False)
  sized: bool = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the weight as it is."""
    return self.w

  def transform_input(self, x: Array) -> Array:
    """Return the signs of the layer input; an inner grid is not applied."""
    shifted = x
    if self.threshold is not None:
      groups = x.shape[-1] // self.threshold.size
      shifted = x - jnp.tile(self.threshold, groups)
    return SIGNS[self.gradient](shifted)

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the mean magnitude of the inputs of each output position."""
    return mean(jnp.abs(x)) if self.sized else None

  def apply_mask(self, mask: Array) -> Any:
    """Return the node with a weight that is 0 where `mask` is False."""
    return self._around(
      self.w.apply_mask(mask)
      if tree.is_node(self.w)
      else jnp.where(mask, self.w, 0)
    )

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return the node with 0 along an axis except at `keep`.

    None for inputs if `sized`, since more inputs have another mean.
    """
    ndim = self.w.ndim
    if self.sized and axis == ndim - 2:
      return None
    wide = self._around(
      self.w.scatter(keep, axis, size)
      if tree.is_node(self.w)
      else tree.scattered(self.w, keep, axis, size)
    )
    if wide is None or self.threshold is None or axis != ndim - 2:
      return wide
    return wide.replace(threshold=tree.scattered(self.threshold, keep, 0, size))

  def scale_channels(self, gain: Array) -> Any:
    """Return the node with its weight times `gain`."""
    return self._around(tree.scaled(self.w, gain))

  def _around(self, w: Any) -> Any:
    return None if w is None else self.replace(w=w)


def inputs(
  *,
  gradient: str = 'clipped',
  threshold: bool = False,
  scaled: bool = False,
  ends: bool = True,
) -> Method:
  r"""Binarize the inputs of layers.

  $x_b = \mathrm{sign}(x - a_c)$ with a surrogate gradient, in every layer but
  the first, whose input is the image (Courbariaux & Hubara+ 2016, arXiv
  1602.02830). Activations without negative values are all 1: place the norm
  directly before the layer, or 'hard_tanh' between them.

  Args:
    gradient: 'clipped', $g \, 1(|x| \leq 1)$, or 'quadratic', that of Bi-Real
      Net, which is larger near 0.
    threshold: Whether to train $a_c$, one per input channel, initialized to 0
      (RSign of ReActNet, Liu+ 2020, arXiv 2003.03488).
    scaled: Whether to multiply outputs by the mean of $|x|$ over the inputs of
      each: the K of XNOR-Net, one number per position of a convolution
      (Rastegari+ 2016, arXiv 1603.05279, equation 11) or per example of a
      dense layer. The groups of a convolution share it.
    ends: Whether to binarize the inputs of the last layer too.

  Returns:
    The method. Chain it before the method that binarizes the weights.

  Raises:
    ValueError: If the gradient is unknown, there is no probe that gives the
      order of the layers, no layer is left, or inputs or weights are quantized
      already.
  """
  expect_name('binary.inputs', 'gradient', gradient, SIGNS)

  def wrap(path: Path, w: Array) -> Signed:
    del path
    turn = jnp.zeros(w.shape[-2], w.dtype) if threshold else None
    return Signed(w, turn, gradient, scaled)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse('binary.inputs', kinds.INPUT_SIGNS, params)
    first, last = first_and_last('binary.inputs', ctx)
    skip = {first} if ends else {first, last}
    weights = tree.paths(params)
    skip |= {p for p in weights if not has_input('binary.inputs', ctx, p)}
    return map_except('binary.inputs', skip, wrap, params)

  return Method(init)


def first_and_last(where: str, ctx: Ctx) -> tuple[Path, Path]:
  """Return the paths of the first and the last weight of the network.

  Args:
    where: Name of the caller, for error messages.
    ctx: Context with a probe, whose `sites` are in order of application.

  Returns:
    The two paths, which are equal if the network has one layer.

  Raises:
    ValueError: If there is no probe.
  """
  sites = expect_probe(where, ctx).sites
  order = [path for path, x in sites.items() if x.kind in ('conv', 'dot')]
  return order[0], order[-1]


def map_except(where: str, skip: set[Path], fn: Any, params: Params) -> Params:
  """Replace every innermost weight array by `fn(path, array)`, except some.

  Args:
    where: Name of the caller, for error messages.
    skip: Paths of the weights that do not change.
    fn: Path, array -> array or node.
    params: A tree of arrays and nodes.

  Returns:
    The tree.

  Raises:
    ValueError: If no weight is left.
  """
  done: list[Path] = []

  def visit(path: Path, x: Any) -> Any:
    if path in skip or not tree.is_weight(x):
      return x
    done.append(path)
    return tree.map_arrays(lambda _, w: fn(path, w), x)

  params = tree.map_paths(visit, params)
  if not done:
    raise ValueError(
      f'{where}: expected a weight other than {" and ".join(sorted(skip))}, '
      'got none. Use a deeper network, or ends=True.'
    )
  return params
