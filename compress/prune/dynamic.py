"""Dynamic masks that depend on training: pruned weights may grow back.

They are for runs from randomly initialized weights, and raise a ValueError if
the run has no steps.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.errors import expect_name, expect_schedule, expect_sparsity
from compress.method import Ctx, Method, expect_run
from compress.prune import importance
from compress.prune.masked import (
  UPDATES,
  Masked,
  add_masks,
  due,
  map_latent,
  replace_masks,
)
from compress.prune.selection import keep_highest, select_share
from compress.schedule import Schedule, cubic
from compress.tree import Array, Params, Path
from compress.unchanged import warn_unchanged


@struct.dataclass
class MovementMasked(Masked):
  """A masked weight with its movement score.

  Attributes:
    w: As `Masked`.
    mask: As `Masked`.
    score: The sum of -w g over the steps, the shape of `w`.
  """

  score: Array


def movement(
  sparsity: float,
  *,
  scope: str = 'layer',
  schedule: Schedule | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Prune the weights that training moves towards 0.

  $S = -\sum_t (1 - t / T) w_t g_t$ with the gradient $g_t$ of the decoded
  weight, dense also where it is pruned, so that a weight may grow back (Sanh+
  2020, arXiv 2005.07683, section 4; hard form). The weight is that after the
  step. As in the paper, the learning rate of the scores falls linearly to 0:
  otherwise weights are exchanged at the end, when none of them can adapt. For
  randomly initialized weights, or weights trained on another task.

  Args:
    sparsity: Share of zeros among the weights at the end, in [0, 1); exact.
    scope: 'layer' or 'global', as `prune.weights`.
    schedule: How the share grows over the run; by default `cubic(0.1, 0.6)`.
      It has to begin at 0: scores are 0 before the first step.
    floor: As `prune.weights`.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, scope or floor is impossible, the schedule is
      not callable or begins above 0, or the run has no steps.
  """
  where = 'prune.movement'
  amount = cubic(0.1, 0.6) if schedule is None else schedule
  expect_schedule(where, amount)
  if amount(jnp.float32(0.0)) > 0:
    raise ValueError(
      f'{where}: expected a schedule that begins at 0, got {amount!r}. Scores '
      'are 0 before the first step.'
    )
  select = select_share(where, sparsity, scope, floor)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    return add_masks(
      where, params, lambda w, m: MovementMasked(w, m, jnp.zeros_like(w))
    )

  def mark(params: Params, ctx: Ctx) -> Params:
    nodes = tree.find(MovementMasked, params)
    scores = {path: node.score for path, node in nodes.items()}
    return replace_masks(params, select(scores, amount(ctx.progress)))

  def update(params: Params, ctx: Ctx) -> Params:
    gradient = importance.gradients(where, params, ctx)
    rate = 1 - ctx.progress

    def follow(path: Path, node: MovementMasked) -> MovementMasked:
      w = tree.latent(node)
      return node.replace(score=node.score - rate * w * gradient(path, w))

    params = tree.map_nodes(MovementMasked, follow, params)
    return jax.lax.cond(due(ctx), lambda p: mark(p, ctx), lambda p: p, params)

  return Method(init, update)


def rigl(
  sparsity: float,
  *,
  distribution: str = 'erk',
  fraction: float = 0.3,
  until: float = 0.75,
  updates: int = UPDATES,
) -> Method:
  r"""Train at constant sparsity: drop small weights, grow large gradients.

  From a random mask, each update drops the share
  $\frac{f}{2} (1 + \cos \frac{\pi p}{p_{end}})$ of the smallest weights
  of each array and grows as many where the gradient is largest; grown weights
  start at 0 (Evci+ 2020, arXiv 1911.11134, algorithm 1). For runs from
  randomly initialized weights: a random mask destroys a trained network.

  Args:
    sparsity: Share of zeros among the weights at every step, in [0, 1); exact
      over all arrays ('erk') or in each ('uniform').
    distribution: 'uniform' for the same share of each array, or 'erk' for
      densities in proportion to `sum(shape) / prod(shape)` (Erdos-Renyi-kernel,
      section 3), which gives small arrays a higher density.
    fraction: Share f of the kept weights that the first update replaces.
    until: Fraction of the run after which the mask is constant.
    updates: Number of mask updates in a run.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, distribution, fraction, end or number of
      updates is impossible, every array would be emptied, or the run has no
      steps. Arrays that would be emptied are not pruned, with a warning.
  """
  where = 'prune.rigl'
  expect_sparsity(where, sparsity)
  expect_name(where, 'distribution', distribution, ('uniform', 'erk'))
  _check_exchange(where, fraction, until, updates)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    params = add_masks(where, params)
    arrays = {p: x.mask.shape for p, x in tree.find(Masked, params).items()}
    left = densities(arrays, sparsity, distribution)
    score = importance.random(params, ctx)
    masks = {
      path: keep_highest(
        score(path, jnp.zeros(shape)), math.prod(shape) - left[path]
      )
      for path, shape in arrays.items()
    }
    return replace_masks(params, masks)

  def exchange(params: Params, ctx: Ctx) -> Params:
    gradient = importance.gradients(where, params, ctx)
    part = fraction / 2 * (1 + jnp.cos(jnp.pi * ctx.progress / until))

    def visit(path: Path, node: Masked) -> Masked:
      w = tree.latent(node)
      mask = _exchanged(node.mask, w, gradient(path, w), part)
      grown = mask & ~node.mask
      node = map_latent(where, path, node, lambda x: jnp.where(grown, 0, x))
      return node.replace(mask=mask)

    return tree.map_nodes(Masked, visit, params)

  def update(params: Params, ctx: Ctx) -> Params:
    now = due(ctx, updates) & (ctx.progress < until)
    return jax.lax.cond(now, lambda p: exchange(p, ctx), lambda p: p, params)

  return Method(init, update)


def _exchanged(mask: Array, w: Array, grad: Array, part: Array) -> Array:
  """Drop a share of the kept weights by size, grow as many by gradient."""
  count = jnp.sum(mask)
  gone = mask.size - count
  drop = jnp.floor(part * count).astype(count.dtype)
  left = keep_highest(jnp.where(mask, jnp.abs(w), -jnp.inf), gone + drop)
  return keep_highest(jnp.where(left, jnp.inf, jnp.abs(grad)), gone)


def densities(
  arrays: dict[Path, tuple[int, ...]], sparsity: float, distribution: str
) -> dict[Path, int]:
  """Return the number of weights to keep in each array.

  Args:
    arrays: Shape of each array, by path.
    sparsity: Share of zeros, in [0, 1).
    distribution: 'uniform' or 'erk', as `rigl`.

  Returns:
    Counts by path; those of 'erk' sum to `n - round(sparsity * n)`. Arrays
    that would be emptied are kept whole and do not count; a warning names
    them.

  Raises:
    ValueError: If every array would be emptied.

  >>> densities({'a': (2, 3), 'b': (40, 10)}, 0.8, 'erk')
  {'a': 6, 'b': 75}
  """
  sizes = {path: math.prod(shape) for path, shape in arrays.items()}
  rest, left = dict(arrays), dict(sizes)
  while True:
    if distribution == 'uniform':
      left = {p: sizes[p] - round(sparsity * sizes[p]) for p in rest}
    else:
      total = sum(sizes[path] for path in rest)
      left = _erk(rest, sizes, total - round(sparsity * total))
    if all(left.values()):
      break
    if not any(left.values()):
      path = max(sizes, key=lambda path: sizes[path])
      raise ValueError(
        f'prune.rigl at {path}: expected a sparsity that leaves a weight, got '
        f'{sparsity!r} for {sizes[path]}. Lower it.'
      )
    rest = {path: shape for path, shape in rest.items() if left[path]}
  small = [path for path in arrays if path not in rest]
  warn_unchanged('prune.rigl', small, f'a sparsity of {sparsity} empties them')
  return {path: left.get(path, sizes[path]) for path in arrays}


def _erk(
  arrays: dict[Path, tuple[int, ...]], sizes: dict[Path, int], budget: int
) -> dict[Path, int]:
  """Divide a budget by `sum(shape)`; no array gets more than its size."""
  full: set[Path] = set()
  while True:
    rest = [path for path in arrays if path not in full]
    spare = budget - sum(sizes[path] for path in full)
    unit = spare / max(1, sum(sum(arrays[path]) for path in rest))
    over = {p for p in rest if unit * sum(arrays[p]) >= sizes[p]}
    if not over:
      break
    full |= over
  want = {path: unit * sum(arrays[path]) for path in rest}
  left = {path: int(want.get(path, sizes[path])) for path in arrays}
  by_remainder = sorted(rest, key=lambda path: left[path] - want[path])
  for path in by_remainder[: budget - sum(left.values())]:
    left[path] += 1
  return left


def _check_exchange(
  where: str, fraction: float, until: float, updates: int
) -> None:
  if not 0 < fraction < 1:
    raise ValueError(
      f'{where}: expected a fraction in (0, 1), got {fraction!r}. It is the '
      'share of the kept weights that the first update replaces.'
    )
  if not 0 < until <= 1:
    raise ValueError(
      f'{where}: expected an end in (0, 1], got {until!r}. It is the fraction '
      'of the run after which the mask is constant.'
    )
  if not isinstance(updates, int) or updates < 1:
    raise ValueError(
      f'{where}: expected 1 update or more, got {updates!r}. It is the number '
      'of mask updates in a run.'
    )
