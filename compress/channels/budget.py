"""Widths: how many channels each group keeps under one budget."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax

from compress import tree
from compress.channels.dependency import Group
from compress.method import Probe, expect_clock
from compress.tree import Params, Path

Widths: TypeAlias = dict[str, int]  # channels left, by name of the group
Remove: TypeAlias = Callable[[Widths], Params]
BUDGETS = ('macs', 'size', 'ms')


class Budget(NamedTuple):
  """How much may be left, and what that means for some widths.

  Attributes:
    of: 'macs', 'size' or 'ms'.
    amount: As the user gave it: a share of the dense network, or milliseconds.
    limit: The same in the unit of `cost`.
    cost: What a network of some widths costs: multiplications of one example,
      numbers in its weights, or milliseconds.
  """

  of: str
  amount: float
  limit: float
  cost: Callable[[Widths], float]


class Ladder(NamedTuple):
  """The widths that a group may have.

  Attributes:
    dense: Its channels in the dense network, which shares refer to.
    steps: What it may have, from what it has now.
  """

  dense: int
  steps: list[int]

  def under(self, part: float) -> int:
    """Return the widest step of at most a part of the dense, or the last."""
    fit = (n for n in self.steps if n <= part * self.dense + 1e-9)
    return next(fit, self.steps[-1])


def budget(
  of: str,
  amount: float,
  found: list[Group],
  remove: Remove,
  probe: Probe,
  params: Params,
) -> Budget:
  """Return a budget for a network.

  Args:
    of: One of `BUDGETS`.
    amount: Share of the dense network in (0, 1], or milliseconds.
    found: The groups of channels.
    remove: Cuts every group to its width.
    probe: Of the network.
    params: The network as it is now.

  Returns:
    The budget.

  Raises:
    ValueError: If milliseconds are wanted and nobody can measure them.
  """
  if of == 'ms':
    clock = expect_clock('prune.filters', probe, 'macs or size')
    return Budget(of, amount, amount, lambda widths: clock(remove(widths)))

  def cost(widths: Widths) -> float:
    return _sum(of, numbers(found, widths, probe, params), probe.uses)

  dense = {path: x.size for path, x in _dense(probe, params).items()}
  uses = {path: x.uses for path, x in (probe.dense or {}).items()}
  whole = _sum(of, dense, uses or probe.uses)
  return Budget(of, amount, amount * whole, cost)


def ladder(group: Group, multiple: int, probe: Probe, params: Params) -> Ladder:
  """Return the widths of a group: multiples, down to the least."""
  n = group.channels
  whole = range(n // multiple * multiple, 0, -multiple)
  dense = _dense(probe, params)
  before = (
    dense[part.path].shape[part.axis]
    for part in group.of('makes')
    if part.path in dense
  )
  # What other groups share is as wide as all of them.
  return Ladder(
    max(n, min(before, default=n)), list(dict.fromkeys([n, *whole]))
  )


def numbers(
  found: list[Group], widths: Widths, probe: Probe, params: Params
) -> dict[Path, int]:
  """Return how many numbers each weight holds at some widths."""
  shapes = {p: x.shape for p, x in tree.paths(whole(params, probe)).items()}
  left = {path: list(shapes[path]) for path in probe.uses}
  for group in found:
    gone = group.channels - widths[group.name]
    for part in group.slices:
      if part.path in left:
        left[part.path][part.axis] -= gone * part.entries.shape[1]
  return {path: math.prod(shape) for path, shape in left.items()}


def multiplications(
  found: list[Group], widths: Widths, probe: Probe, params: Params
) -> float:
  """Return the multiplications of one example at some widths."""
  return _sum('macs', numbers(found, widths, probe, params), probe.uses)


def whole(params: Params, probe: Probe) -> Params:
  """Return the shapes of a network of which `only` may hold back a part."""
  leaves = jax.tree.leaves(params, is_leaf=lambda x: x is None)
  missing = any(x is None for x in leaves)
  return jax.eval_shape(probe.grad if missing else tree.decode, params)


def uniform(budget: Budget, ladders: dict[str, Ladder]) -> Widths:
  """Return the widest widths of one share that meet the budget."""
  shares = {n / x.dense for x in ladders.values() for n in x.steps}
  for part in sorted(shares, reverse=True):
    chosen = {name: x.under(part) for name, x in ladders.items()}
    if budget.cost(chosen) <= budget.limit:
      return chosen
  raise _unmet(budget, ladders)


def descend(
  budget: Budget, ladders: dict[str, Ladder], remove: Remove, probe: Probe
) -> Widths:
  """Take channels where the loss rises least for what it saves."""
  chosen = {name: x.steps[0] for name, x in ladders.items()}
  cost, loss = budget.cost(chosen), float(probe.loss(remove(chosen)))
  while cost > budget.limit:
    tries = []
    for name, x in ladders.items():
      left = [n for n in x.steps if n < chosen[name]]
      if left:
        widths = {**chosen, name: left[0]}
        then = float(probe.loss(remove(widths)))
        # A clock may see no gain where there is one.
        less = max(cost - budget.cost(widths), 1e-6 * cost)
        tries.append(((then - loss) / less, name, widths, then))
    if not tries:
      raise _unmet(budget, ladders)
    _, _, chosen, loss = min(tries, key=lambda t: t[:2])
    cost = budget.cost(chosen)
  return _exchanged(budget, ladders, remove, probe, chosen)


def _exchanged(
  budget: Budget,
  ladders: dict[str, Ladder],
  remove: Remove,
  probe: Probe,
  chosen: Widths,
) -> Widths:
  """Narrow one group for what it gives to others, while the loss falls.

  Steps are large beside the budget of a small network, so that going down by
  the steepest one may end far under the budget or on the wrong side of it.
  """
  found = _filled(budget, ladders, chosen)
  loss = float(probe.loss(remove(found)))
  while True:
    tries = []
    for name, x in ladders.items():
      left = [n for n in x.steps if n < found[name]]
      if left:
        others = {**found, name: left[0]}
        others = _filled(budget, ladders, others, kept=name)
        widths = _filled(budget, ladders, others)
        if any(widths[k] > found[k] for k in widths):
          tries.append((float(probe.loss(remove(widths))), name, widths))
    best, _, widths = min(tries, key=lambda t: t[:2], default=(loss, '', found))
    if best >= loss:
      return found
    found, loss = widths, best


def _filled(
  budget: Budget, ladders: dict[str, Ladder], chosen: Widths, kept: str = ''
) -> Widths:
  """Give groups what there is room for, the last layers first."""
  for name, x in reversed(ladders.items()):
    if name == kept:
      continue
    wider = ({**chosen, name: n} for n in x.steps)
    chosen = next(
      w for w in wider if w == chosen or budget.cost(w) <= budget.limit
    )
  return chosen


class _Size(NamedTuple):
  shape: tuple[int, ...]
  size: int


def _dense(probe: Probe, params: Params) -> dict[Path, _Size]:
  """Return the weights of the dense network: by default as they are now."""
  if probe.dense:
    shapes = {path: x.shape for path, x in probe.dense.items()}
  else:
    now = tree.paths(whole(params, probe))
    shapes = {path: now[path].shape for path in probe.uses}
  return {path: _Size(s, math.prod(s)) for path, s in shapes.items()}


def _sum(of: str, sizes: dict[Path, int], uses: dict[Path, int]) -> float:
  """Sum multiplications, or numbers, over weights."""
  return sum((uses[p] if of == 'macs' else 1) * n for p, n in sizes.items())


def _unmet(budget: Budget, ladders: dict[str, Ladder]) -> ValueError:
  last = budget.cost({name: x.steps[-1] for name, x in ladders.items()})
  least = math.ceil(1000 * last * budget.amount / budget.limit) / 1000
  return ValueError(
    f'prune.filters: expected {budget.of} of at least {least}, got '
    f'{budget.amount!r}. Fewer would empty a layer; lower `multiple`, or let '
    'more layers shrink.'
  )
