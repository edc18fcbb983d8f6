"""Pruning of whole filters and neurons: fewer channels, really smaller."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from compress import coupling, tree
from compress.channels import Sliced, cut, whittled
from compress.coupling import Group
from compress.method import Ctx, Method, Probe, expect_probe
from compress.rank import RANKS
from compress.tree import Params, Path

Widths: TypeAlias = dict[str, int]  # channels left, by name of the group


def filters(
  *,
  macs: float | None = None,
  share: float | None = None,
  score: str = 'l2',
  scope: str = 'uniform',
  layers: str = '.*',
  multiple: int = 16,
  greedy: bool = False,
) -> Method:
  r"""Remove whole channels, with everything that is coupled to them.

  Which channels go together is found on the network itself (`coupling`). Of
  each group the channels of least score go (Li+ 2017, arXiv 1608.08710). How
  many is set by one number, of the dense network: `macs`, the share of its
  multiplications that may be left, or `share`, the part of the channels of
  each group that goes. Widths are multiples of the processor's vector width,
  since others run slower than the dense network.

  Args:
    macs: Share of the multiplications left at most, in (0, 1].
    share: Share of the channels removed at least, in [0, 1).
    score: 'l1' or 'l2' norm of the filters (Li+ 2017), 'taylor' the influence
      on the loss over calibration data (Molchanov+ 2019, arXiv 1906.10771,
      equation 8), 'norm' the scale of the batch norm (Liu+ 2017, arXiv
      1708.06519), 'median' the distance from the other filters (He+ 2019,
      arXiv 1811.00250), or 'random'.
    scope: 'uniform' removes the same share of each group; 'auto' chooses the
      widths: step by step it takes channels where the loss over calibration
      data rises least for the multiplications saved.
    layers: Regular expression for the groups that may shrink, by name.
    multiple: Widths are multiples of it, and at least it, unless a group has
      fewer channels.
    greedy: Whether inputs that are gone no longer count in the scores of the
      filters behind them (Li+ 2017, section 3.2).

  Returns:
    The method. All is done in `init`; training then moves what is left.

  Raises:
    ValueError: If an argument is impossible, nothing can be removed, the
      budget cannot be met, or calibration data is missing.
  """
  _check(macs, share, score, scope, multiple)
  if greedy and score not in ('l1', 'l2', 'median'):
    raise ValueError(
      f'prune.filters: expected a score of weights with greedy=True, got '
      f'{score!r}. Use l1, l2 or median.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    probe = expect_probe('prune.filters', ctx)
    refuse_nodes('prune.filters', params)
    # Every group asks for the same gradients.
    asked = functools.cache(lambda count: probe.samples(params, count))
    ctx = ctx._replace(
      probe=probe._replace(samples=lambda _, count: asked(count))
    )
    every = coupling.groups(probe.apply, whole(params, probe))
    found = _chosen(every, layers, params)
    ladder = {g.name: _steps(g.channels, multiple) for g in found}
    remove = _remover(found, score, greedy, params, ctx)
    if scope == 'auto':
      assert macs is not None  # `_check`
      return _descend(found, ladder, macs, remove, probe, params)
    if share is not None:
      widths = {
        name: _under(steps, 1 - share) for name, steps in ladder.items()
      }
    else:
      widths = _uniform(found, ladder, macs or 1.0, probe, params)
    return remove(widths)

  return Method(init)


def widths(params: Params) -> dict[Path, tuple[int, int]]:
  """Return how many outputs each weight had and has: the table to print."""
  found = {}
  for path, x in tree.paths(params).items():
    if isinstance(x, Sliced) and tree.holds_weight(x):
      shapes = (jax.eval_shape(tree.decode, y).shape for y in (x, whittled(x)))
      before, after = (shape[-1] for shape in shapes)
      if before != after:
        found[path] = (before, after)
  return found


def whole(params: Params, probe: Probe) -> Params:
  """Return the shapes of a network of which `only` may hold back a part."""
  leaves = jax.tree.leaves(params, is_leaf=lambda x: x is None)
  missing = any(x is None for x in leaves)
  return jax.eval_shape(probe.grad if missing else tree.decode, params)


def _chosen(found: list[Group], layers: str, params: Params) -> list[Group]:
  """Return the groups that the user lets shrink, and that can."""
  have = tree.paths(params)
  here = [g for g in found if all(s.path in have for s in g.slices)]
  chosen = [g for g in here if re.fullmatch(layers, g.name)]
  if not chosen:
    names = ', '.join(g.name for g in found) or 'none'
    raise ValueError(
      f'prune.filters: expected layers with channels to remove, got {layers!r} '
      f'of {names}. Leave out `only`: a group goes as a whole, and '
      '`layers=` chooses among them.'
    )
  return chosen


def _steps(channels: int, multiple: int) -> list[int]:
  """Return the widths a group may have, from the widest."""
  whole = range(channels // multiple * multiple, 0, -multiple)
  return list(dict.fromkeys([channels, *whole]))


def _under(steps: list[int], part: float) -> int:
  """Return the widest step of at most a part of the channels, or the last."""
  return next((n for n in steps if n <= part * steps[0] + 1e-9), steps[-1])


def multiplications(
  found: list[Group], widths: Widths, probe: Probe, params: Params
) -> float:
  """Return the multiplications of one example at some widths."""
  shapes = {p: x.shape for p, x in tree.paths(whole(params, probe)).items()}
  left = {path: list(shapes[path]) for path in probe.uses}
  for group in found:
    gone = group.channels - widths[group.name]
    for part in group.slices:
      if part.path in left:
        left[part.path][part.axis] -= gone * part.entries.shape[1]
  return sum(uses * math.prod(left[path]) for path, uses in probe.uses.items())


def _uniform(
  found: list[Group],
  ladder: dict[str, list[int]],
  macs: float,
  probe: Probe,
  params: Params,
) -> Widths:
  """Return the widest widths of one share that meet the budget."""
  dense = {name: steps[0] for name, steps in ladder.items()}
  limit = macs * multiplications(found, dense, probe, params)
  parts = sorted({n / s[0] for s in ladder.values() for n in s}, reverse=True)
  for part in parts:
    chosen = {name: _under(steps, part) for name, steps in ladder.items()}
    if multiplications(found, chosen, probe, params) <= limit:
      return chosen
  raise _unmet(found, ladder, probe, params, macs)


def _descend(
  found: list[Group],
  ladder: dict[str, list[int]],
  macs: float,
  remove: Callable[[Widths], Params],
  probe: Probe,
  params: Params,
) -> Params:
  """Take channels where the loss rises least for the work saved."""
  chosen = {name: steps[0] for name, steps in ladder.items()}
  dense = work = multiplications(found, chosen, probe, params)
  loss, small = float(probe.loss(params)), params
  while work > macs * dense:
    tries = []
    for name, steps in ladder.items():
      left = [n for n in steps if n < chosen[name]]
      if left:
        widths = {**chosen, name: left[0]}
        tried = remove(widths)
        less = work - multiplications(found, widths, probe, params)
        rise = float(probe.loss(tried)) - loss
        tries.append((rise / less, name, widths, tried))
    if not tries:
      raise _unmet(found, ladder, probe, params, macs)
    _, _, chosen, small = min(tries, key=lambda t: t[:2])
    loss = float(probe.loss(small))
    work = multiplications(found, chosen, probe, params)
  return remove(_filled(found, ladder, chosen, macs * dense, probe, params))


def _filled(
  found: list[Group],
  ladder: dict[str, list[int]],
  chosen: Widths,
  limit: float,
  probe: Probe,
  params: Params,
) -> Widths:
  """Give back what the last step took too much, the last layers first."""
  for name, steps in reversed(ladder.items()):
    wider = ({**chosen, name: n} for n in steps)
    chosen = next(
      w
      for w in wider
      if multiplications(found, w, probe, params) <= limit or w == chosen
    )
  return chosen


def _remover(
  found: list[Group], score: str, greedy: bool, params: Params, ctx: Ctx
) -> Callable[[Widths], Params]:
  """Return the function that cuts every group to its width."""
  rank = RANKS[score]
  dense = {} if greedy else {g.name: rank(g, params, ctx) for g in found}

  def remove(widths: Widths) -> Params:
    small = params
    for group in found:
      scores = dense.get(group.name)
      if scores is None:
        scores = rank(group, tree.decode(small), ctx)
      order = np.argsort(-scores, kind='stable')
      keep = np.zeros(group.channels, bool)
      keep[order[: widths[group.name]]] = True
      small = small if keep.all() else cut(small, group, keep)
    return small

  return remove


def _unmet(
  found: list[Group],
  ladder: dict[str, list[int]],
  probe: Probe,
  params: Params,
  macs: float,
) -> ValueError:
  first, last = (
    multiplications(found, {k: v[i] for k, v in ladder.items()}, probe, params)
    for i in (0, -1)
  )
  least = math.ceil(1000 * last / first) / 1000
  return ValueError(
    f'prune.filters: expected macs of at least {least}, got {macs!r}. Fewer '
    'would empty a layer; lower `multiple`, or let more layers shrink.'
  )


def refuse_nodes(where: str, params: Params) -> None:
  """Raise a ValueError if a method that cuts arrays is not the first."""
  for path, x in tree.paths(params).items():
    if tree.is_node(x):
      raise ValueError(
        f'{where}: expected plain arrays, got {type(x).__name__} at {path}. '
        f'Put it first: "{where}(...) >> ...".'
      )


def _check(
  macs: float | None,
  share: float | None,
  score: str,
  scope: str,
  multiple: int,
) -> None:
  def refuse(expected: str, got: Any, fix: str) -> ValueError:
    return ValueError(f'prune.filters: expected {expected}, got {got!r}. {fix}')

  if (macs is None) == (share is None):
    fix = 'Say prune.filters(macs=0.5) or prune.filters(share=0.3).'
    raise refuse('macs or share', {'macs': macs, 'share': share}, fix)
  if macs is not None and not 0 < macs <= 1:
    fix = 'It is the share of the multiplications that is left.'
    raise refuse('macs in (0, 1]', macs, fix)
  if share is not None and not 0 <= share < 1:
    fix = 'It is the share of the channels that goes.'
    raise refuse('a share in [0, 1)', share, fix)
  for what, got, names in (
    ('score', score, tuple(RANKS)),
    ('scope', scope, ('uniform', 'auto')),
  ):
    if got not in names:
      raise refuse(f'a {what} of {", ".join(names)}', got, '')
  if scope == 'auto' and macs is None:
    raise refuse("macs with scope='auto'", share, 'Give it a budget.')
  if not (isinstance(multiple, int) and multiple >= 1):
    raise refuse('a multiple from 1', multiple, 'Widths are multiples of it.')
