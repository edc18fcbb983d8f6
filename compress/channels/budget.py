"""The width of each group of channels under one budget."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax

from compress import tree
from compress.channels.dependency import Group
from compress.method import Probe, expect_clock
from compress.tree import Params, Path

Widths: TypeAlias = dict[str, int]  # remaining channels, by name of group
Remove: TypeAlias = Callable[[Widths], Params]
LossOf: TypeAlias = Callable[[Widths], float]  # over the calibration data
BUDGETS = ('macs', 'size', 'ms')


class Budget(NamedTuple):
  """A budget and the cost function that it limits.

  Attributes:
    of: 'macs', 'size' or 'ms'.
    amount: The argument: a share of the dense network, or milliseconds.
    limit: The same in units of `cost`.
    cost: Cost of a network of given widths: multiplications per example,
      entries of its weights, or milliseconds.
  """

  of: str
  amount: float
  limit: float
  cost: Callable[[Widths], float]


class Choices(NamedTuple):
  """The widths that a group may have.

  Attributes:
    dense: Its channels in the dense network, the reference of shares.
    widths: Possible widths, in decreasing order from the current one.
  """

  dense: int
  widths: list[int]

  def at_most(self, share: float) -> int:
    """Return the largest width of at most a share of the dense, or the last."""
    fit = (n for n in self.widths if n <= share * self.dense + 1e-9)
    return next(fit, self.widths[-1])


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
    remove: Reduces every group to its width.
    probe: Of the network.
    params: The current network.

  Returns:
    The budget.

  Raises:
    ValueError: If the budget is in milliseconds and the probe cannot measure
      time.
  """
  if of == 'ms':
    clock = expect_clock('prune.filters', probe, 'macs or size')
    return Budget(of, amount, amount, lambda widths: clock(remove(widths)))

  def cost(widths: Widths) -> float:
    return _sum(of, entry_counts(found, widths, probe, params), probe.uses)

  dense = {path: x.size for path, x in _dense(probe, params).items()}
  uses = {path: x.uses for path, x in (probe.dense or {}).items()}
  total = _sum(of, dense, uses or probe.uses)
  return Budget(of, amount, amount * total, cost)


def width_choices(
  group: Group, multiple: int, probe: Probe, params: Params
) -> Choices:
  """Return the possible widths of a group: multiples, in decreasing order."""
  n = group.channels
  multiples = range(n // multiple * multiple, 0, -multiple)
  dense = _dense(probe, params)
  before = (
    dense[part.path].shape[part.axis]
    for part in group.of('produces')
    if part.path in dense
  )
  # An axis shared with other groups is as wide as all of them.
  return Choices(
    max(n, min(before, default=n)), list(dict.fromkeys([n, *multiples]))
  )


def entry_counts(
  found: list[Group], widths: Widths, probe: Probe, params: Params
) -> dict[Path, int]:
  """Return the number of entries of each weight at given widths."""
  shapes = {
    p: x.shape for p, x in tree.paths(full_shapes(params, probe)).items()
  }
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
  """Return the multiplications per example at given widths."""
  return _sum('macs', entry_counts(found, widths, probe, params), probe.uses)


def full_shapes(params: Params, probe: Probe) -> Params:
  """Return the shapes of the whole network, also under `only`."""
  leaves = jax.tree.leaves(params, is_leaf=lambda x: x is None)
  missing = any(x is None for x in leaves)
  return jax.eval_shape(probe.grad if missing else tree.decode, params)


def uniform(budget: Budget, choices: dict[str, Choices]) -> Widths:
  """Return the largest widths of one common share that meet the budget."""
  shares = {n / x.dense for x in choices.values() for n in x.widths}
  for share in sorted(shares, reverse=True):
    chosen = {name: x.at_most(share) for name, x in choices.items()}
    if budget.cost(chosen) <= budget.limit:
      return chosen
  raise _unmet(budget, choices)


def greedy(
  budget: Budget, choices: dict[str, Choices], loss_of: LossOf
) -> Widths:
  """Remove channels where the loss rises least per saved cost."""
  chosen = {name: x.widths[0] for name, x in choices.items()}
  cost, loss = budget.cost(chosen), loss_of(chosen)
  while cost > budget.limit:
    tries = []
    for name, x in choices.items():
      left = [n for n in x.widths if n < chosen[name]]
      if left:
        widths = {**chosen, name: left[0]}
        then = loss_of(widths)
        # A measured time may not fall where the cost does.
        less = max(cost - budget.cost(widths), 1e-6 * cost)
        tries.append(((then - loss) / less, name, widths, then))
    if not tries:
      raise _unmet(budget, choices)
    _, _, chosen, loss = min(tries, key=lambda t: t[:2])
    cost = budget.cost(chosen)
  return _exchange(budget, choices, loss_of, chosen)


def _exchange(
  budget: Budget,
  choices: dict[str, Choices],
  loss_of: LossOf,
  chosen: Widths,
) -> Widths:
  """Narrow one group and widen others while the loss falls.

  Steps are large relative to the budget of a small network, so that greedy
  descent may end far below the budget.
  """
  found = _fill(budget, choices, chosen)
  loss = loss_of(found)
  while True:
    tries = []
    for name, x in choices.items():
      left = [n for n in x.widths if n < found[name]]
      if left:
        others = {**found, name: left[0]}
        others = _fill(budget, choices, others, kept=name)
        widths = _fill(budget, choices, others)
        if any(widths[k] > found[k] for k in widths):
          tries.append((loss_of(widths), name, widths))
    best, _, widths = min(tries, key=lambda t: t[:2], default=(loss, '', found))
    if best >= loss:
      return found
    found, loss = widths, best


def _fill(
  budget: Budget, choices: dict[str, Choices], chosen: Widths, kept: str = ''
) -> Widths:
  """Widen groups as far as the budget allows, the last layers first."""
  for name, x in reversed(choices.items()):
    if name == kept:
      continue
    wider = ({**chosen, name: n} for n in x.widths)
    chosen = next(
      w for w in wider if w == chosen or budget.cost(w) <= budget.limit
    )
  return chosen


class _Size(NamedTuple):
  shape: tuple[int, ...]
  size: int


def _dense(probe: Probe, params: Params) -> dict[Path, _Size]:
  """Return the weights of the dense network, by default the current ones."""
  if probe.dense:
    shapes = {path: x.shape for path, x in probe.dense.items()}
  else:
    now = tree.paths(full_shapes(params, probe))
    shapes = {path: now[path].shape for path in probe.uses}
  return {path: _Size(s, math.prod(s)) for path, s in shapes.items()}


def _sum(of: str, sizes: dict[Path, int], uses: dict[Path, int]) -> float:
  """Return the sum of multiplications, or of entries, over weights."""
  return sum((uses[p] if of == 'macs' else 1) * n for p, n in sizes.items())


def _unmet(budget: Budget, choices: dict[str, Choices]) -> ValueError:
  last = budget.cost({name: x.widths[-1] for name, x in choices.items()})
  least = math.ceil(1000 * last * budget.amount / budget.limit) / 1000
  return ValueError(
    f'prune.filters: expected {budget.of} of at least {least}, got '
    f'{budget.amount!r}. Less would empty a layer; lower `multiple` or '
    'include more layers.'
  )
