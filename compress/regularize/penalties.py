"""Penalties on the weights, which make unimportant weights small.

A penalty does not make exact zeros, since gradient steps overshoot 0; they
come from a pruning method after it in the chain, as in
`regularize.l1(1e-5) >> prune.weights(0.9, schedule=cubic(0.3, 0.7))`. `shrink`
is the proximal form of the lasso and makes exact zeros. Penalties apply to the
trained arrays inside the nodes of a tree, before masks and quantizers, and not
to biases and norms.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, Method
from compress.schedule import Schedule, at_once, linear
from compress.tree import Array, Params


def l1(strength: float, *, schedule: Schedule | None = None) -> Method:
  r"""Add the lasso, $\lambda \sum_i |w_i|$, to the loss.

  Its gradient does not depend on the magnitude, so that small weights reach 0
  (Tibshirani 1996; for networks Han+ 2015, arXiv 1506.02626, section 3.1).

  Args:
    strength: $\lambda$, 0 or more: loss per unit of weight; 1e-6 to 1e-4.
    schedule: How it grows over the run; by default constant.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If the strength is negative or not finite, or the schedule
      not callable.

  >>> float(l1(0.5).loss({'w': jnp.array([[3.0, -1.0]])}, Ctx()))
  2.0
  """
  return _penalty('l1', strength, schedule, lambda w: jnp.sum(jnp.abs(w)))


def l2(strength: float, *, schedule: Schedule | None = None) -> Method:
  r"""Add $\frac{\lambda}{2} \sum_i w_i^2$ to the loss.

  The gradient is $\lambda w$, as in weight decay, but an adaptive optimizer
  rescales it (Loshchilov & Hutter 2019, arXiv 1711.05101, section 2). It
  shrinks large weights most and helps magnitude pruning less than `l1`.

  Args:
    strength: $\lambda$, 0 or more.
    schedule: How it grows over the run; by default constant.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If the strength is negative or not finite, or the schedule
      not callable.

  >>> float(l2(0.5).loss({'w': jnp.array([[3.0, -1.0]])}, Ctx()))
  2.5
  """
  return _penalty('l2', strength, schedule, lambda w: jnp.sum(w**2) / 2)


def group_lasso(
  strength: float, *, axis: int = -1, schedule: Schedule | None = None
) -> Method:
  r"""Add $\lambda \sum_g \sqrt{n_g} \, \lVert w_g \rVert_2$ to the loss.

  The $n_g$ weights of a group tend to 0 together (Yuan & Lin 2006, equation
  2.3; on filters and channels Wen+ 2016, arXiv 1608.03665, equation 4).

  Args:
    strength: $\lambda$, 0 or more; with groups of one weight this is `l1`.
    axis: The axis that indexes groups: -1 for the outputs of a layer
      (filters, neurons), -2 for its inputs.
    schedule: How it grows over the run; by default constant.

  Returns:
    The method; it has only a loss. The gradient at a group of zeros is 0.

  Raises:
    ValueError: If the strength is negative or not finite, the axis is neither
      -1 nor -2, or the schedule is not callable.

  >>> w = jnp.array([[3.0, 0.0], [4.0, 0.0]])
  >>> round(float(group_lasso(1.0).loss({'w': w}, Ctx())), 4)
  7.0711
  """
  _expect_axis('group_lasso', axis)

  def cost(w: Array) -> Array:
    size = w.size // w.shape[axis]
    return math.sqrt(size) * jnp.sum(_norms(w, axis))

  return _penalty('group_lasso', strength, schedule, cost)


def shrink(
  strength: float,
  *,
  axis: int | None = None,
  schedule: Schedule | None = None,
) -> Method:
  r"""Soft-threshold every weight in each step (proximal gradient).

  The optimizer's step is followed by the proximal step of the lasso,
  $w \leftarrow \mathrm{sign}(w) \max(|w| - \tau, 0)$, or of the group lasso,
  $w_g \leftarrow w_g \max(0, 1 - \tau \sqrt{n_g} / \lVert w_g \rVert_2)$
  (Parikh & Boyd 2014, sections 6.5.2 and 6.5.4). Zeros are exact, and a weight
  leaves 0 again if its gradient is large enough. The step is decoupled from the
  optimizer (as weight decay in arXiv 1711.05101). The steps of an adaptive
  optimizer do not shrink with the gradient: let the learning rate decay, so
  that weights are 0 at the end of the run.

  Args:
    strength: Sum of all $\tau$ of the run: the decrease of a weight without a
      gradient; for groups, of their root mean square. Without training it is
      applied once.
    axis: None for single weights, or as `group_lasso`.
    schedule: How the sum grows over the run; by default linearly.

  Returns:
    The method.

  Raises:
    ValueError: If the strength is negative or not finite, the axis is neither
      -1 nor -2, or the schedule is not callable.

  >>> shrink(1.0).init({'w': jnp.array([[3.0, -0.5]])}, Ctx(steps=0))
  {'w': Array([[2., 0.]], dtype=float32)}
  """
  amount = linear() if schedule is None else schedule
  expect_penalty('regularize.shrink', strength, amount)
  if axis is not None:
    _expect_axis('shrink', axis)

  def step(params: Params, part: Array) -> Params:
    return tree.map_arrays(
      lambda path, w: soft_threshold(w, strength * part, axis), params
    )

  def init(params: Params, ctx: Ctx) -> Params:
    return step(params, amount(ctx.progress))

  def update(params: Params, ctx: Ctx) -> Params:
    before = ctx._replace(step=ctx.step - 1).progress
    return step(params, amount(ctx.progress) - amount(before))

  return Method(init, update)


def soft_threshold(w: Array, by: Array, axis: int | None = None) -> Array:
  """Return `w` moved towards 0: the proximal operator of the lasso.

  Args:
    w: Any shape.
    by: `()`, 0 or more.
    axis: None for single numbers; else the axis that indexes groups, whose
      root mean square decreases.

  Returns:
    The shape of `w`, exactly 0 where `w` is at most `by` from 0.

  >>> soft_threshold(jnp.array([3.0, -0.5]), 1.0).tolist()
  [2.0, 0.0]
  """
  if axis is None:
    size = jnp.abs(w)
  else:
    count = w.size // w.shape[axis]
    size = _norms(w, axis) / math.sqrt(count)
  left = jnp.maximum(size - by, 0) / jnp.where(size > 0, size, 1)
  return jnp.where(left > 0, w * left, 0)


def _norms(w: Array, axis: int) -> Array:
  """Return the norm of each group, broadcastable; the gradient at 0 is 0."""
  others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
  square = jnp.sum(w**2, axis=others, keepdims=True)
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _penalty(
  name: str,
  strength: float,
  schedule: Schedule | None,
  cost: Callable[[Array], Array],
) -> Method:
  amount = at_once() if schedule is None else schedule
  expect_penalty(f'regularize.{name}', strength, amount)

  def loss(params: Params, ctx: Ctx) -> Array:
    costs: list[Array] = []
    tree.map_arrays(lambda path, w: costs.append(cost(w)), params)
    return strength * amount(ctx.progress) * sum(costs, jnp.zeros(()))

  return Method(loss=loss)


def expect_penalty(where: str, strength: float, schedule: Schedule) -> None:
  """Raise ValueError unless strength and schedule are valid."""
  if not 0 <= strength < math.inf:
    raise ValueError(
      f'{where}: expected a strength of 0 or more, got {strength!r}.'
    )
  if not callable(schedule):
    raise ValueError(
      f'{where}: expected a schedule, got {schedule!r}. Call one of '
      'compress.schedule, as linear(0.0, 0.5).'
    )


def _expect_axis(name: str, axis: int) -> None:
  if axis not in (-1, -2):
    raise ValueError(
      f'regularize.{name}: expected the axis -1 (outputs) or -2 (inputs), got '
      f'{axis!r}.'
    )
