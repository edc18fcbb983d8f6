"""Loss-aware binarization: scales weighted by the curvature of the loss."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.binary import straight_through as straight_through_lib
from compress.binary.weights import (
  SCALES,
  LatentSigns,
  binarize,
  initial_scale,
  mean_magnitude,
)
from compress.errors import expect_name
from compress.method import Ctx, Method
from compress.quantize.affine import straight_through
from compress.tree import Array, Params, Path

DAMPING = 1e-8  # of the curvature, as Adam's epsilon


@struct.dataclass
class LossAware(LatentSigns):
  """A binarize latent weight with a scale weighted by curvature.

  Attributes:
    squares: Running mean of the squared gradient of the decoded weight, the
      shape of `w`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w',)

  squares: Array

  def decode(self) -> Array:
    """Return the scaled signs, with the identity as the gradient of `w`."""
    assert self.alpha is not None
    return straight_through(
      straight_through_lib.clipped(self.w) * self.alpha, self.w
    )

  def optimal_scale(self, w: Array) -> Array | None:
    """Return the scale of a latent weight, weighted by the curvature."""
    assert self.alpha is not None
    return mean_magnitude(w, self.alpha, jnp.sqrt(self.squares) + DAMPING)


def loss_aware(
  *, scale: str = 'layer', decay: float = 0.999, ends: bool = True
) -> Method:
  r"""Train binary weights with a scale weighted by the curvature of the loss.

  $w_b = \alpha \, \mathrm{sign}(w)$ with $\alpha = \lVert d \odot w \rVert_1 /
  \lVert d \rVert_1$ minimizes $\sum_i d_i (\alpha b_i - w_i)^2$, where $d$
  approximates the diagonal of the Hessian, so that weights that do not affect
  the loss do not affect the scale. As in Adam, $d = \sqrt{v} + \epsilon$, $v$
  the running mean of the squared gradient of $w_b$ (Hou+ 2017, arXiv
  1611.01600, proposition 3.1). The gradient is passed to $w$ unchanged, and
  $w$ is clipped to [-1, 1] after each step.

  Args:
    scale: One $\alpha$ per 'layer', as in the paper, or per 'filter'.
    decay: Fraction of the old $v$ kept at each step.
    ends: Whether to binarize the first and the last weight too.

  Returns:
    The method. Before the first gradient all weights have equal curvature.
    Chain `binary.inputs` before it to binarize inputs too.

  Raises:
    ValueError: If the scale is unknown or the decay outside [0, 1); see also
      `binary.weights`.
  """
  where = 'binary.loss_aware'
  expect_name(where, 'scale', scale, SCALES[:2])
  if not 0 <= decay < 1:
    raise ValueError(
      f'{where}: expected a decay in [0, 1), got {decay!r}. It is the fraction '
      'of the old curvature kept at each step.'
    )

  def wrap(path: Path, w: Array) -> LossAware:
    del path
    return LossAware(w, initial_scale(w, scale), False, jnp.zeros_like(w))

  def init(params: Params, ctx: Ctx) -> Params:
    return binarize(where, wrap, ends, params, ctx)

  def update(params: Params, ctx: Ctx) -> Params:
    grads = {} if ctx.grads is None else _gradients(params, ctx.grads)

    def follow(path: Path, node: LossAware) -> LatentSigns:
      grad = grads.get(path)
      if grad is not None:
        squares = decay * node.squares + (1 - decay) * grad**2
        node = node.replace(squares=squares)
      return node.clipped()

    return tree.map_nodes(LossAware, follow, params)

  return Method(init, update)


def _gradients(params: Params, grads: Params) -> dict[Path, Array]:
  """Return the gradient in the decoded array of each `LossAware` node, by path.

  The gradients of a step are those in the decoded weights. Nodes around a
  `LossAware` node, as of removed channels or factors, are differentiated.
  """
  found: dict[Path, Array] = {}

  def visit(path: Path, x: Any, grad: Array) -> None:
    if isinstance(x, LossAware):
      found[path] = grad
      return
    if not tree.find(LossAware, x):
      return
    inside = {field: tree.decode(getattr(x, field)) for field in x.inner}
    _, pull = jax.vjp(lambda parts: x.replace(**parts).decode(), inside)
    for field, part in pull(grad)[0].items():
      below = path if len(x.inner) == 1 else f'{path}/{field}'
      visit(below, getattr(x, field), part)

  dense = tree.paths(grads)
  for path, x in tree.paths(params).items():
    if path in dense:
      visit(path, x, dense[path])
  return found
