"""Structured pruning: removal of filters and neurons."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from compress import kinds, tree
from compress.channels import budget as sizing
from compress.channels import dependency, importance
from compress.channels.budget import Widths
from compress.channels.dependency import Group
from compress.channels.importance import SCORES, Importance
from compress.channels.sliced import (
  Keeps,
  Sliced,
  cut_all,
  unsliced,
  zeroing,
)
from compress.errors import expect_name, shorten
from compress.method import Ctx, Method, expect_probe
from compress.tree import Params, Path
from compress.unchanged import warn_unchanged


def filters(
  *,
  macs: float | None = None,
  size: float | None = None,
  ms: float | None = None,
  share: float | None = None,
  score: str | Importance = 'l2',
  scope: str = 'uniform',
  layers: str = '.*',
  multiple: int = 16,
  greedy: bool = False,
) -> Method:
  r"""Remove channels together with everything that depends on them.

  Groups of dependent channels are found by tracing the network
  (`channels.dependency`). In each group the channels with the lowest scores
  are removed (Li+ 2017, arXiv 1608.08710). Their number follows from one
  budget: `macs`, `size` and `share` are relative to the dense network, also
  where the method starts from a pruned one (prune, train, repeat); `ms` is the
  latency of the deployed network. Widths are multiples of the vector width of
  the processor: other widths may run slower than the dense network.

  Args:
    macs: Largest remaining share of the multiplications, in (0, 1].
    size: Largest remaining share of the weights, in (0, 1].
    ms: Largest latency at batch 1 in milliseconds, measured by the probe.
    share: Smallest share of removed channels, in [0, 1).
    score: 'l1' or 'l2' norm of the filters (Li+ 2017), 'taylor' the effect
      on the loss over calibration data (Molchanov+ 2019, arXiv 1906.10771,
      equation 8), 'bn_scale' the scale of the batch norm (Liu+ 2017, arXiv
      1708.06519; groups without one stay, with a warning), 'fpgm' the
      distance from the other filters (He+ 2019, arXiv 1811.00250),
      'random', or a function: groups, parameters and context -> scores
      `[channels]` by name of the group.
    scope: 'uniform' removes the same share of each group; 'auto' searches the
      widths: it removes channels where the loss over calibration data rises
      least per saved cost.
    layers: Regular expression for the names of the groups to prune.
    multiple: Widths are multiples of it, and at least it, unless a group has
      fewer channels.
    greedy: Whether removed inputs are excluded from the scores of the next
      layer (Li+ 2017, section 3.2).

  Returns:
    The method. Channels are removed in `init`.

  Raises:
    ValueError: If an argument is impossible, nothing can be removed, the
      budget cannot be met, or calibration data is missing.
  """
  given = {'macs': macs, 'size': size, 'ms': ms, 'share': share}
  of, amount = _check(given, score, scope, multiple)
  if greedy and score not in ('l1', 'l2', 'fpgm'):
    raise ValueError(
      f'prune.filters: expected a score of weights with greedy=True, got '
      f'{score!r}. Use l1, l2 or fpgm.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    probe = expect_probe('prune.filters', ctx)
    kinds.refuse('prune.filters', kinds.ARRAYS, params)
    every, blocked = dependency.explained(
      probe.apply, sizing.full_shapes(params, probe), probe.examples
    )
    found = _chosen(every, blocked, layers, params)
    _say(blocked, layers)
    if score == 'bn_scale':
      found = _with_norms(found)
    choices = {
      g.name: sizing.width_choices(g, multiple, probe, params) for g in found
    }
    keeps = _make_keeps(found, score, greedy, params, ctx)

    def remove(widths: Widths) -> Params:
      return cut_all(params, found, keeps(widths))

    if of == 'share':
      widths = {k: x.at_most(1 - amount) for k, x in choices.items()}
      if amount > 0:
        _expect_fewer(widths, choices, multiple)
      return remove(widths)
    budget = sizing.budget(of, amount, found, remove, probe, params)
    if scope == 'auto':
      zeroed = zeroing(params, found)

      def loss(widths: Widths) -> float:
        return float(probe.loss(zeroed(keeps(widths))))

      return remove(sizing.greedy(budget, choices, loss))
    return remove(sizing.uniform(budget, choices))

  return Method(init)


def _expect_fewer(widths: Widths, choices: Any, multiple: int) -> None:
  """Warn of groups that keep all channels, raise ValueError if all do."""
  whole = [name for name, x in choices.items() if widths[name] == x.widths[0]]
  found = shorten(', '.join(f'{k} of {widths[k]}' for k in whole), 90)
  if len(whole) == len(choices):
    raise ValueError(
      f'prune.filters: expected groups of more than {multiple} channels, got '
      f'{found}. Widths are multiples of {multiple}: lower `multiple`.'
    )
  why = f'widths are multiples of {multiple}: lower `multiple`'
  warn_unchanged('prune.filters', whole, why)


def widths(params: Params) -> dict[Path, tuple[int, int]]:
  """Return the number of outputs of each weight before and after."""
  found = {}
  for path, x in tree.paths(params).items():
    if isinstance(x, Sliced) and tree.is_weight(x):
      shapes = (y.shape for y in (x, unsliced(x)))
      before, after = (shape[-1] for shape in shapes)
      if before != after:
        found[path] = (before, after)
  return found


def _chosen(
  found: list[Group], blocked: dict[str, str], layers: str, params: Params
) -> list[Group]:
  """Return the groups to prune."""
  have = tree.paths(params)
  here = [g for g in found if all(s.path in have for s in g.slices)]
  chosen = [g for g in here if re.fullmatch(layers, g.name)]
  if chosen:
    return chosen
  names = shorten(', '.join(g.name for g in found), 60) or 'none'
  why = shorten('; '.join(f'{k}: {why}' for k, why in blocked.items()), 90)
  raise ValueError(
    f'prune.filters: expected layers with channels to remove, got {layers!r} '
    f'of {names}. Not removable: {why or "none"}. Leave out `only`: groups go '
    'as a whole; select them with `layers=`.'
  )


def _say(blocked: dict[str, str], layers: str) -> None:
  """Warn of selected layers whose channels cannot go, by reason."""
  for why in dict.fromkeys(blocked.values()):
    if why != dependency.OUTPUTS:  # of every network
      names = [k for k, x in blocked.items() if x == why]
      selected = [name for name in names if re.fullmatch(layers, name)]
      warn_unchanged('prune.filters', selected, why)


def _with_norms(found: list[Group]) -> list[Group]:
  """Return the groups with a norm, all of them if there is none."""
  scored = [g for g in found if importance.norm_scales(g)]
  if not scored:
    return found  # the score raises
  others = [g.name for g in found if not importance.norm_scales(g)]
  why = "no norm follows them, which score='bn_scale' needs"
  warn_unchanged('prune.filters', others, why)
  return scored


def _make_keeps(
  found: list[Group],
  score: str | Importance,
  greedy: bool,
  params: Params,
  ctx: Ctx,
) -> Callable[[Widths], Keeps]:
  """Return the function from widths to the channels that remain."""
  score_fn = score if callable(score) else SCORES[score]
  dense = {} if greedy else score_fn(found, params, ctx)

  def keeps(widths: Widths) -> Keeps:
    small, chosen = params, {}
    for group in found:
      scores = dense.get(group.name)
      if scores is None:
        scores = score_fn([group], tree.decode(small), ctx)[group.name]
      order = np.argsort(-scores, kind='stable')
      keep = np.zeros(group.channels, bool)
      keep[order[: widths[group.name]]] = True
      chosen[group.name] = keep
      if greedy:
        small = cut_all(small, [group], chosen)
    return chosen

  return keeps


def _check(
  given: dict[str, float | None],
  score: str | Importance,
  scope: str,
  multiple: int,
) -> tuple[str, float]:
  """Return the unit of the budget and its amount."""

  def refuse(expected: str, got: Any, fix: str) -> ValueError:
    return ValueError(f'prune.filters: expected {expected}, got {got!r}. {fix}')

  named = [(of, amount) for of, amount in given.items() if amount is not None]
  if len(named) != 1:
    fix = 'Use prune.filters(macs=0.5) or prune.filters(share=0.3).'
    raise refuse('one of macs, size, ms and share', given, fix)
  of, amount = named[0]
  if of in ('macs', 'size') and not 0 < amount <= 1:
    fix = 'It is the share of the dense network that remains.'
    raise refuse(f'{of} in (0, 1]', amount, fix)
  if of == 'ms' and not 0 < amount < float('inf'):
    raise refuse('ms above 0', amount, 'It is a time in milliseconds.')
  if of == 'share' and not 0 <= amount < 1:
    fix = 'It is the share of the channels to remove.'
    raise refuse('a share in [0, 1)', amount, fix)
  for what, got, names in (
    ('score', score, tuple(SCORES)),
    ('scope', scope, ('uniform', 'auto')),
  ):
    if not callable(got):
      expect_name('prune.filters', what, got, names)
  if scope == 'auto' and of == 'share':
    raise refuse("a budget with scope='auto'", given, 'Give it macs.')
  if not (isinstance(multiple, int) and multiple >= 1):
    raise refuse('a multiple from 1', multiple, 'Widths are multiples of it.')
  return of, amount
