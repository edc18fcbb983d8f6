"""Masks that follow training: weights may come back, or start again.

These are for runs from fresh weights: what they prune depends on how the
network learns, and they are refused where there are no steps to learn in.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.prune import importance
from compress.prune.masked import (
  UPDATES,
  Masked,
  due,
  expect_name,
  expect_run,
  expect_schedule,
  expect_sparsity,
  kept,
  masked,
  moved,
  remasked,
  share,
)
from compress.schedule import Schedule, cubic
from compress.tree import Array, Params, Path


@struct.dataclass
class Moving(Masked):
  """A masked weight that counts how training moved it.

  Attributes:
    w: As `Masked`.
    mask: As `Masked`.
    moved: The sum of -w g over the steps, the shape of `w`.
  """

  moved: Array


def movement(
  sparsity: float,
  *,
  scope: str = 'layer',
  schedule: Schedule | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Keep the weights that training moves away from 0.

  $S = -\sum_t w_t g_t$ with the gradient $g_t$ of the decoded weight, dense
  also where it is pruned, so that a weight may come back (Sanh+ 2020, arXiv
  2005.07683, section 4; hard form). The weight is that after the step. For
  runs from weights that are still learning: fresh, or trained on another task.

  Args:
    sparsity: Share of zeros among the weights at the end, in [0, 1); exact.
    scope: 'layer' or 'global', as `prune.weights`.
    schedule: How the share grows over the run; by default `cubic(0.1, 0.6)`.
      Before the first step nothing has moved, so it begins at 0.
    floor: As `prune.weights`.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, scope or floor is impossible, the schedule is
      none or begins above 0, or the run has no steps.
  """
  where = 'prune.movement'
  amount = cubic(0.1, 0.6) if schedule is None else schedule
  expect_schedule(where, amount)
  if amount(jnp.float32(0.0)) > 0:
    raise ValueError(
      f'{where}: expected a schedule that begins at 0, got {amount!r}. Before '
      'the first step no weight has moved.'
    )
  choose = share(where, sparsity, scope, floor)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    return masked(where, params, lambda w, m: Moving(w, m, jnp.zeros_like(w)))

  def mark(params: Params, ctx: Ctx) -> Params:
    nodes = tree.find(Moving, params)
    scores = {path: node.moved for path, node in nodes.items()}
    return remasked(params, choose(scores, amount(ctx.progress)))

  def update(params: Params, ctx: Ctx) -> Params:
    gradient = importance.gradients(where, params, ctx)

    def follow(path: Path, node: Moving) -> Moving:
      w = tree.latent(node)
      return node.replace(moved=node.moved - w * gradient(path, w))

    params = tree.map_nodes(Moving, follow, params)
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
  r"""Train at one sparsity, dropping small weights for steep ones.

  From a random mask, each update drops the share
  $\frac{f}{2} (1 + \cos \frac{\pi p}{p_{end}})$ of the weights of each array
  that are smallest, and grows as many where the gradient is largest; what
  grows starts at 0 (Evci+ 2020, arXiv 1911.11134, algorithm 1). For runs from
  fresh weights: a random mask ruins trained ones.

  Args:
    sparsity: Share of zeros among the weights at every step, in [0, 1); exact
      over all arrays ('erk') or in each ('uniform').
    distribution: 'uniform' for the same share of each array, or 'erk' for
      densities in proportion to `sum(shape) / prod(shape)` (Erdos-Renyi-kernel,
      section 3), which spares small arrays.
    fraction: Share f of the kept weights that the first update exchanges.
    until: Fraction of the run after which the mask stays.
    updates: How often the mask is updated in a whole run.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, distribution, fraction, end or number of
      updates is impossible, an array would be left empty, or the run has no
      steps.
  """
  where = 'prune.rigl'
  expect_sparsity(where, sparsity)
  expect_name(where, 'distribution', distribution, ('uniform', 'erk'))
  _check_exchange(where, fraction, until, updates)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    params = masked(where, params)
    arrays = {p: x.mask.shape for p, x in tree.find(Masked, params).items()}
    left = densities(arrays, sparsity, distribution)
    chance = importance.random(params, ctx)
    masks = {
      path: kept(chance(path, jnp.zeros(shape)), math.prod(shape) - left[path])
      for path, shape in arrays.items()
    }
    return remasked(params, masks)

  def exchange(params: Params, ctx: Ctx) -> Params:
    gradient = importance.gradients(where, params, ctx)
    part = fraction / 2 * (1 + jnp.cos(jnp.pi * ctx.progress / until))

    def visit(path: Path, node: Masked) -> Masked:
      w = tree.latent(node)
      mask = _exchanged(node.mask, w, gradient(path, w), part)
      grown = mask & ~node.mask
      node = moved(where, path, node, lambda x: jnp.where(grown, 0, x))
      return node.replace(mask=mask)

    return tree.map_nodes(Masked, visit, params)

  def update(params: Params, ctx: Ctx) -> Params:
    now = due(ctx, updates) & (ctx.progress < until)
    return jax.lax.cond(now, lambda p: exchange(p, ctx), lambda p: p, params)

  return Method(init, update)


def _exchanged(mask: Array, w: Array, grad: Array, part: Array) -> Array:
  """Drop a part of what is kept by size, grow as much by gradient."""
  count = jnp.sum(mask)
  gone = mask.size - count
  drop = jnp.floor(part * count).astype(count.dtype)
  left = kept(jnp.where(mask, jnp.abs(w), -jnp.inf), gone + drop)
  return kept(jnp.where(left, jnp.inf, jnp.abs(grad)), gone)


def densities(
  arrays: dict[Path, tuple[int, ...]], sparsity: float, distribution: str
) -> dict[Path, int]:
  """Return how many weights of each array are kept.

  Args:
    arrays: Shape of each array, by path.
    sparsity: Share of zeros, in [0, 1).
    distribution: 'uniform' or 'erk', as `rigl`.

  Returns:
    Counts by path; those of 'erk' sum to `n - round(sparsity * n)`.

  Raises:
    ValueError: If an array would be left empty.

  >>> densities({'a': (2, 3), 'b': (40, 10)}, 0.8, 'erk')
  {'a': 6, 'b': 75}
  """
  sizes = {path: math.prod(shape) for path, shape in arrays.items()}
  if distribution == 'uniform':
    left = {path: n - round(sparsity * n) for path, n in sizes.items()}
  else:
    total = sum(sizes.values())
    left = _erk(arrays, sizes, total - round(sparsity * total))
  for path, count in left.items():
    if not count:
      raise ValueError(
        f'prune.rigl at {path}: expected a sparsity that leaves a weight, got '
        f'{sparsity!r} for {sizes[path]}. Lower it, or leave this array out.'
      )
  return left


def _erk(
  arrays: dict[Path, tuple[int, ...]], sizes: dict[Path, int], budget: int
) -> dict[Path, int]:
  """Share a budget by `sum(shape)`, no array beyond its size."""
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
      'share of the kept weights that the first update exchanges.'
    )
  if not 0 < until <= 1:
    raise ValueError(
      f'{where}: expected an end in (0, 1], got {until!r}. It is the fraction '
      'of the run after which the mask stays.'
    )
  if not isinstance(updates, int) or updates < 1:
    raise ValueError(
      f'{where}: expected 1 update or more, got {updates!r}. It is how often '
      'the mask changes in a whole run.'
    )
