"""Binary inputs: a layer sees the signs of what it is given."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.binary.straight_through import SIGNS
from compress.errors import expect_name
from compress.method import Ctx, Method, expect_probe
from compress.tree import Array, Compressed, Key, Mean, Params, Path


@struct.dataclass
class Signed(Compressed):
  """A weight that is met by the signs of its layer's input.

  Attributes:
    w: The weight `[..., inputs, channels]`, whatever it decodes to.
    threshold: Where the sign turns, `[inputs]`, or None for 0. The groups of
      a convolution share it.
    gradient: Which of `sign.SIGNS`.
    sized: Whether sums of signs are multiplied by the mean size of the inputs
      that they are of.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'threshold')
  inner: ClassVar[tuple[str, ...]] = ('w',)
  kind: ClassVar[str] = kinds.INPUT_SIGNS
  input_bits: ClassVar[int] = 1

  w: Any
  threshold: Array | None
  gradient: str = struct.field(pytree_node=False)
  sized: bool = struct.field(pytree_node=False)

  def decode(self, key: Key | None) -> Array:
    """Return the weight as it is."""
    del key
    return self.w

  def transform_input(self, x: Array) -> Array:
    """Return the signs of the layer input; a grid inside sees nothing."""
    turned = x
    if self.threshold is not None:
      groups = x.shape[-1] // self.threshold.size
      turned = x - jnp.tile(self.threshold, groups)
    return SIGNS[self.gradient](turned)

  def scale_output(self, x: Array, mean: Mean) -> Array | None:
    """Return the mean size of what each output place sees."""
    return mean(jnp.abs(x)) if self.sized else None

  def apply_mask(self, mask: Array) -> Any:
    """Return the node around what is 0 where `mask` is False."""
    return self._around(
      self.w.apply_mask(mask)
      if tree.is_node(self.w)
      else jnp.where(mask, self.w, 0)
    )

  def scatter(self, keep: Array, axis: int, size: int) -> Any:
    """Return the node around zeros along an axis except at `keep`.

    None for inputs whose mean size counts: more of them have another mean.
    """
    ndim = jax.eval_shape(tree.decode, self.w).ndim
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
    """Return the node around the weight times `gain`."""
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
  r"""Give layers the signs of their inputs.

  $x_b = \mathrm{sign}(x - a_c)$, with a gradient that stands in for that of
  the sign: every layer but the first, which sees the image as it is
  (Courbariaux & Hubara+ 2016, arXiv 1602.02830). A network whose
  activations are never negative gives ones: put the norm right before the
  layer, or 'hard_tanh' between them.

  Args:
    gradient: 'clipped', $g \, 1(|x| \leq 1)$, or 'quadratic', that of Bi-Real
      Net, which is larger near 0.
    threshold: Whether to learn $a_c$, one an input channel, from 0 (RSign of
      ReActNet, Liu+ 2020, arXiv 2003.03488).
    scaled: Whether to multiply sums of signs by the mean of $|x|$ over what
      each is of: the K of XNOR-Net, one number a place of a convolution
      (Rastegari+ 2016, arXiv 1603.05279, equation 11), one an example for a
      dense layer. The groups of a convolution share it.
    ends: Whether the last layer is given signs too.

  Returns:
    The method. Chain it before what makes the weights binary.

  Raises:
    ValueError: If the gradient is none, there is no probe to tell the first
      layer, no layer is left, or inputs or weights have a grid already.
  """
  expect_name('binary.inputs', 'gradient', gradient, SIGNS)

  def wrap(path: Path, w: Array) -> Signed:
    del path
    turn = jnp.zeros(w.shape[-2], w.dtype) if threshold else None
    return Signed(w, turn, gradient, scaled)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse('binary.inputs', kinds.INPUT_SIGNS, params)
    first, last = outer('binary.inputs', ctx)
    skip = {first} if ends else {first, last}
    return map_others('binary.inputs', skip, wrap, params)

  return Method(init)


def outer(where: str, ctx: Ctx) -> tuple[Path, Path]:
  """Return the paths of the first and the last weight of the network.

  Args:
    where: Who asks, for the error.
    ctx: With a probe, whose `uses` are in order of application.

  Returns:
    The two paths; one twice if the network has one layer.

  Raises:
    ValueError: If there is no probe.
  """
  order = list(expect_probe(where, ctx).uses)
  return order[0], order[-1]


def map_others(where: str, skip: set[Path], fn: Any, params: Params) -> Params:
  """Replace every innermost weight array by `fn(path, array)`, but for some.

  Args:
    where: Who asks, for the error.
    skip: The paths of the weights that stay.
    fn: Path, array -> array or node.
    params: A tree of arrays and nodes.

  Returns:
    The tree.

  Raises:
    ValueError: If no weight is left.
  """
  done: list[Path] = []

  def visit(path: Path, x: Any) -> Any:
    if path in skip or not tree.holds_weight(x):
      return x
    done.append(path)
    return tree.map_arrays(lambda _, w: fn(path, w), x)

  params = tree.map_paths(visit, params)
  if not done:
    raise ValueError(
      f'{where}: expected a weight beside {" and ".join(sorted(skip))}, which '
      'stay as they are, got none. Take a deeper network, or ends=True.'
    )
  return params
