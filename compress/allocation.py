"""Allocation: one budget in, an amount for each layer out.

Each layer has a few candidates, each with a sensitivity (what it does to the
network) and a cost; choosing one a layer is a multiple-choice knapsack. What an
amount is (zeros, bits, a rank) only the caller knows.
"""

import bisect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from compress import hessian, tree
from compress.errors import expect_name
from compress.method import Ctx, expect_probe, shapes_only
from compress.tree import Array, Params, Path

Change: TypeAlias = Callable[[Path, Array, Any], Any]  # w, amount -> node
Measure: TypeAlias = Callable[[Params], Array]  # changed tree -> loss `()`
MakeMeasure: TypeAlias = Callable[[Params, Ctx], Measure]

STEPS = 4096  # of the budget, in the knapsack
SAMPLES = 64  # single gradients of the Fisher measure
WORST = 1e30  # sensitivity to a candidate whose loss is not finite


def knapsack(
  losses: Sequence[Any], cost: Sequence[Any], budget: float
) -> Array:
  r"""Choose one candidate a layer of least total loss within a budget.

  $\min_c \sum_l d_{l c_l}$ subject to $\sum_l k_{l c_l} \le B$, by dynamic
  programming over what is spent above the cheapest choice, in `STEPS` steps.
  Costs are rounded up to steps, so that the budget is never exceeded. The
  choice is the best one of the rounded costs: the best of all where costs are
  whole and at most `STEPS` are to be spent.

  Args:
    losses: `[layers][candidates]`, each at least 0; may be traced.
    cost: `[layers][candidates]`, any unit, known numbers.
    budget: Largest sum of the chosen costs.

  Returns:
    The candidate of each layer, `[layers]` int32; the first of equals.

  Raises:
    ValueError: If even the cheapest candidates exceed the budget.

  >>> knapsack([[0, 4], [0, 1]], [[5, 2], [5, 2]], 7).tolist()
  [0, 1]
  """
  spent, room = _steps([np.asarray(row, np.float64) for row in cost], budget)
  return _solve([_finite(row) for row in losses], spent, room)


def minimax(
  losses: Sequence[Any], cost: Sequence[Any], budget: float
) -> list[int]:
  r"""Choose one candidate a layer of least largest loss within a budget.

  $\min_c \max_l d_{l c_l}$ subject to $\sum_l k_{l c_l} \le B$: the least
  threshold under which each layer's cheapest candidate fits in (Liebenwein+
  2021, arXiv 2107.11442, section 3.3).

  Args:
    losses: `[layers][candidates]`, each at least 0.
    cost: `[layers][candidates]`, any unit.
    budget: Largest sum of the chosen costs.

  Returns:
    The candidate of each layer.

  Raises:
    ValueError: If even the cheapest candidates exceed the budget.

  >>> minimax([[0, 4], [0, 1]], [[5, 2], [5, 2]], 7)
  [0, 1]
  """
  rows = [np.asarray(row, np.float64) for row in losses]
  costs = [np.asarray(row, np.float64) for row in cost]

  def under(level: float) -> list[int]:
    pairs = zip(rows, costs, strict=True)
    return [int(np.argmin(np.where(d <= level, k, np.inf))) for d, k in pairs]

  def fits(level: float) -> bool:
    chosen = zip(costs, under(level), strict=True)
    return sum(row[i] for row, i in chosen) <= budget

  least = max(row.min() for row in rows)
  levels = np.unique([x for row in rows for x in row if x >= least])
  at = bisect.bisect_left(levels, True, key=fits)
  if at == len(levels):
    raise _over(sum(row.min() for row in costs), budget)
  return under(levels[at])


@jax.jit
def _solve(losses: list[Array], spent: list[Array], room: int) -> Array:
  """Choose by dynamic programming: costs and room are in whole steps."""
  best, picks = jnp.zeros(STEPS + 1), []
  for loss, row in zip(losses, spent, strict=True):
    left = jnp.arange(STEPS + 1) - row[:, None]
    options = best[jnp.maximum(left, 0)] + loss[:, None]
    options = jnp.where(left >= 0, options, jnp.inf)
    picks.append(jnp.argmin(options, axis=0))
    best = jnp.min(options, axis=0)
  at, chosen = jnp.asarray(room), []
  for pick, row in zip(reversed(picks), reversed(spent), strict=True):
    chosen.append(pick[at])
    at -= row[chosen[-1]]
  return jnp.stack(chosen[::-1]).astype(jnp.int32)


def _steps(
  costs: list[np.ndarray], budget: float
) -> tuple[list[np.ndarray], int]:
  """Return costs above each layer's least in whole steps, and the room."""
  least = sum(row.min() for row in costs)
  if not least <= budget:
    raise _over(least, budget)
  extra, room = [row - row.min() for row in costs], budget - least
  if room <= STEPS and all(np.all(x == np.round(x)) for x in extra):
    scaled, steps = extra, int(room)
  else:
    parts = (np.minimum(x, room) / (room or 1.0) for x in extra)
    scaled, steps = [np.ceil(STEPS * part) for part in parts], STEPS
  # What is out of reach is so by its cost, not by its rounding.
  spent = zip(extra, scaled, strict=True)
  return [
    np.where(x <= room, y, STEPS + 1).astype(np.int32) for x, y in spent
  ], steps


def _over(least: float, budget: float) -> ValueError:
  return ValueError(
    f'allocation: expected a budget of at least {least:g}, the cost of the '
    f'cheapest candidates, got {budget!r}. Raise it or add cheaper ones.'
  )


def _finite(losses: Any) -> Array:
  """Return losses that can be summed."""
  numbers = jnp.nan_to_num(jnp.asarray(losses, jnp.float32), nan=WORST)
  return jnp.minimum(numbers, WORST)


def sensitivity(
  ctx: Ctx,
  params: Params,
  candidates: dict[Path, Any],
  change: Change,
  measure: str | MakeMeasure = 'loss',
) -> dict[Path, Array]:
  r"""Measure what each candidate does to the network on its own.

  One weight is changed by one amount, all others stay as they are. With
  $\hat w$ for what the changed weight decodes to, the sensitivity is

  * 'loss': $L(\hat w) - L(w)$ on the calibration data (Li+ 2017, arXiv
    1608.08710, section 3.2), before any retraining;
  * 'fisher': $\frac12 \sum_i F_i (w_i - \hat w_i)^2$ with the diagonal
    $F_i$ of the empirical Fisher matrix: a quadratic model of the same loss
    that does not saturate where the network is broken;
  * 'trace': $\frac12 \frac{\mathrm{tr} H}{n} \|w - \hat w\|^2$ with the
    mean curvature of the layer (HAWQ-V2: Dong+ 2020, arXiv 1911.03852,
    equation 8; `hessian.traces`);
  * 'energy': $e = \|w - \hat w\|^2 / \|w\|^2$; it needs no data;
  * 'signal': $-\log(1 - e)$: the signal behind a chain of layers falls with the
    product of the shares that they keep, so that no layer loses nearly all.

  Args:
    ctx: With a probe for what needs data.
    params: The tree of arrays and nodes; None stands for the trained weight.
    candidates: By path, amounts in the order of growing sensitivity.
    change: Path, array, amount -> the array or node that stands for it.
    measure: One of `MEASURES`, or a function: parameters and context ->
      (changed parameters) -> what they lose, `()`.

  Returns:
    By path, `[candidates]`, at least 0 and never falling: the running maximum,
    so that noise makes no smaller amount look worse.
  """
  raw = sensitivities(ctx, params, candidates, change, measure)
  return {p: jax.lax.cummax(jnp.maximum(x, 0.0)) for p, x in raw.items()}


def sensitivities(
  ctx: Ctx,
  params: Params,
  candidates: dict[Path, Any],
  change: Change,
  measure: str | MakeMeasure = 'loss',
) -> dict[Path, Array]:
  """Measure candidates that have no order: `sensitivity` without its maximum.

  Returns:
    By path, `[candidates]`, below 0 where the network got better.
  """
  make = measure if callable(measure) else MEASURES[measure]
  loss_of = make(params, ctx)
  if shapes_only():
    return {path: jnp.zeros(len(x)) for path, x in candidates.items()}

  def changed(path: Path, amount: Any) -> Params:
    return tree.map_arrays(
      lambda p, w: change(p, w, amount) if p == path else w, params
    )

  found = {}
  for path, amounts in candidates.items():
    raw = jnp.stack([loss_of(changed(path, amount)) for amount in amounts])
    found[path] = _finite(raw)
  return found


def picked(chosen: Any, cost: Sequence[Any]) -> list[int]:
  """Return the number of each layer's candidate.

  Args:
    chosen: Of `knapsack` or `minimax`.
    cost: As they are given it.

  Returns:
    The numbers, of the last candidates where only shapes are asked for.

  >>> picked(jnp.array([1, 0]), [[5, 2], [5, 2]])
  [1, 0]
  """
  if shapes_only() and isinstance(chosen, jax.core.Tracer):
    return [len(row) - 1 for row in cost]
  found: list[int] = np.asarray(chosen).tolist()
  return found


def _loss(params: Params, ctx: Ctx) -> Measure:
  probe = expect_probe('allocation.sensitivity', ctx)
  start = probe.loss(params)
  return lambda changed: probe.loss(changed) - start


def _fisher(params: Params, ctx: Ctx) -> Measure:
  probe = expect_probe('allocation.sensitivity', ctx)
  dense = tree.paths(tree.decode(params))
  fisher = probe.reduce(params, tuple(dense), hessian.squares, SAMPLES)

  def measure(changed: Params) -> Array:
    return 0.5 * sum(
      (
        jnp.sum(fisher[path] * (w - dense[path]) ** 2)
        for path, w in tree.paths(tree.decode(changed)).items()
      ),
      jnp.zeros(()),
    )

  return measure


def _trace(params: Params, ctx: Ctx) -> Measure:
  dense = tree.paths(tree.decode(params))
  found = hessian.traces('allocation.sensitivity', params, ctx)
  mean = {p: jnp.maximum(found[p], 0.0) / x.size for p, x in dense.items()}

  def measure(changed: Params) -> Array:
    return 0.5 * sum(
      (
        mean[path] * jnp.sum((w - dense[path]) ** 2)
        for path, w in tree.paths(tree.decode(changed)).items()
      ),
      jnp.zeros(()),
    )

  return measure


def _energy(params: Params, ctx: Ctx) -> Measure:
  del ctx
  dense = tree.paths(tree.decode(params))

  def measure(changed: Params) -> Array:
    return sum(
      (
        jnp.sum((w - dense[path]) ** 2)
        / jnp.maximum(jnp.sum(dense[path] ** 2), jnp.finfo(w.dtype).tiny)
        for path, w in tree.paths(tree.decode(changed)).items()
      ),
      jnp.zeros(()),
    )

  return measure


def _signal(params: Params, ctx: Ctx) -> Measure:
  lost = _energy(params, ctx)
  return lambda changed: -jnp.log1p(-jnp.minimum(lost(changed), 1.0))


MEASURES: dict[str, MakeMeasure] = {
  'energy': _energy,
  'fisher': _fisher,
  'loss': _loss,
  'signal': _signal,
  'trace': _trace,
}


def expect_measure(
  where: str, measure: str | MakeMeasure, others: tuple[str, ...]
) -> None:
  """Check a sensitivity.

  Raises:
    ValueError: If it is neither a name of `MEASURES` or others nor a function.
  """
  if not callable(measure):
    expect_name(where, 'sensitivity', measure, (*MEASURES, *others))
