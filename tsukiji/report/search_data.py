"""The results of a search for a report: trials and the best of them."""

import itertools
import re
import statistics
import types
from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import Any, NamedTuple

from tsukiji.report.columns import digits

SHOWN = 10  # of the best trials
OBJECTIVES = {  # words, unit, by what to multiply
  'val_accuracy': ('validation accuracy', '%', 100.0),
  'bytes': ('size of the file', 'kB', 1e-3),
  'macs': ('MACs', '10⁶', 1e-6),
  'params': ('parameters', '10³', 1e-3),
  'latency_ms': ('latency', 'ms', 1.0),
  'energy_uj': ('modeled energy', 'µJ', 1.0),
  'flash': ('constants of the C file', 'kB', 1e-3),
  'ram': ('memory of the C file', 'kB', 1e-3),
}


class Trial(NamedTuple):
  """A trial.

  Attributes:
    designer: The designer that suggested it.
    seed: Seed of its study.
    number: Number in its study.
    values: Values by objective; empty if it was infeasible.
    params: Active parameters, by path in the config.
    seconds: Its time.
    share: Its epochs as a fraction of those of a full one.
    inside: Whether it is inside the budget of the study.
    pruned: Whether it was ended before; its accuracy is the last.
  """

  designer: str
  seed: int
  number: int
  values: Mapping[str, float]
  params: Mapping[str, Any]
  seconds: float
  share: float = 1.0
  inside: bool = True
  pruned: bool = False


class Tested(NamedTuple):
  """The best trial of a study: accuracies on two sets, fractions."""

  validation: float
  test: float


class Range(NamedTuple):
  """The range of a parameter, or its options."""

  log: bool
  options: tuple[str, ...]


class Searched(NamedTuple):
  """The results of a search.

  Attributes:
    trials: Trials of all studies.
    ranges: Ranges by path in the config.
    importances: Share of the variance of the accuracy, by path; may be empty.
    recipe: The recipe that varied, in the second stage of a study.
    tested: The best trial of each seed, by designer; may be empty.
  """

  trials: Sequence[Trial]
  ranges: Mapping[str, Range]
  importances: Mapping[str, float]
  recipe: str = ''
  tested: Mapping[str, Sequence[Tested]] = types.MappingProxyType({})

  @property
  def title(self) -> str:
    """Return the heading of its section."""
    return f'The search for {self.recipe}' if self.recipe else 'The search'

  @property
  def name(self) -> str:
    """Return the prefix of the files of its figures."""
    return f'search_{self.recipe}' if self.recipe else 'search'

  @property
  def objectives(self) -> list[str]:
    """Return the objectives, the accuracy first."""
    found = next((t.values for t in self.trials if t.values), {})
    return sorted(found, key=lambda name: name != 'val_accuracy')


def accuracy(trial: Trial) -> float:
  """Return the accuracy of a trial, 0 where it was infeasible."""
  return trial.values.get('val_accuracy', 0.0)


def useful(trial: Trial) -> float:
  """Return the accuracy of a full trial, 0 where it is outside the budget."""
  return accuracy(trial) if trial.inside and not trial.pruned else 0.0


def courses(searched: Searched) -> dict[str, list[list[float]]]:
  """Return the best accuracy so far by trial, a list a seed, by designer."""
  return _by_seed(searched, useful, max)


def spent(searched: Searched) -> dict[str, list[list[float]]]:
  """Return the cost of all trials so far, in full-length trials; `courses`."""
  return _by_seed(searched, lambda trial: trial.share, sum)


def _by_seed(
  searched: Searched,
  value: Callable[[Trial], float],
  joined: Callable[[list[float]], float],
) -> dict[str, list[list[float]]]:
  found: dict[str, dict[int, list[float]]] = {}
  for trial in searched.trials:
    of_seed = found.setdefault(trial.designer, {}).setdefault(trial.seed, [])
    of_seed.append(joined([value(trial), *of_seed[-1:]]))
  return {name: [*seeds.values()] for name, seeds in found.items()}


def best_of(values: Sequence[float], count: int) -> float:
  """Return the expected best of some draws from values, without replacement.

  >>> best_of([1.0, 2.0, 3.0], 2)
  2.6666666666666665
  """
  ways = comb(len(values), count)
  return sum(
    value * comb(i, count - 1) / ways for i, value in enumerate(sorted(values))
  )


def twice(searched: Searched) -> list[float]:
  """Return the expected best of random search with twice as many trials.

  Of all random trials of all seeds; empty unless there are several seeds.
  """
  drawn = [t for t in searched.trials if t.designer == 'random']
  values = [accuracy(t) for t in drawn]
  longest = max((t.number + 1 for t in drawn), default=0)
  if len({t.seed for t in drawn}) < 2 or len(values) < 2 * longest:
    return []
  return [best_of(values, 2 * n) for n in range(1, longest + 1)]


def short(names: Sequence[str]) -> dict[str, str]:
  """Shorten paths to their last part where that is enough.

  >>> short(['train.lr', 'networks.a.sizes.kernel'])
  {'train.lr': 'lr', 'networks.a.sizes.kernel': 'kernel'}
  """
  last = [name.rpartition('.')[2] for name in names]
  return {
    name: end if last.count(end) == 1 else name
    for name, end in zip(names, last, strict=True)
  }


def word(option: Any) -> str:
  """Return an option as a word: that of a recipe may name a part, or be empty.

  >>> word('adamw'), word('{filters}'), word('')
  ('adamw', 'filters', 'none')
  """
  part = re.fullmatch(r'\{(\w+)\}', str(option))
  return part[1] if part else str(option) or 'none'


def table(searched: Searched) -> list[list[str]]:
  """Return the best trials as rows of text, the first row the heads."""
  named = short([*searched.ranges])
  words = [', '.join(OBJECTIVES[x][:2]) for x in searched.objectives]
  rows = [['trial', *words, 'seconds', *named.values()]]
  ordered = sorted(
    searched.trials, key=lambda t: (t.inside, accuracy(t)), reverse=True
  )
  full = [t for t in ordered if t.values and not t.pruned]
  for trial in full[:SHOWN]:
    values = [_value(name, trial.values[name]) for name in searched.objectives]
    params = [_param(trial.params.get(name)) for name in named]
    name = f'{trial.designer}-{trial.seed}, {trial.number}'
    rows.append([name, *values, f'{trial.seconds:.0f}', *params])
  return rows if len(rows) > 1 else []


def sentences(searched: Searched) -> list[str]:
  """Return sentences on the result of each designer."""
  out = []
  for designer, seeds in courses(searched).items():
    last = [100 * course[-1] for course in seeds]
    own = [t for t in searched.trials if t.designer == designer]
    failed = sum(not t.values for t in own)
    spread = f' (from {min(last):.2f} to {max(last):.2f})' * (len(last) > 1)
    out.append(
      f'{designer}: {statistics.median(last):.2f} % on the validation set is '
      f'the best of {len(own) // len(seeds)} trials{spread}; {failed} of '
      f'{len(own)} were infeasible'
    )
    if pruned := sum(t.pruned for t in own):
      out[-1] += f', {pruned} pruned'
    if outside := sum(not t.inside for t in own):
      out[-1] += f', {outside} outside the budget'
    out[-1] += _on_test(searched.tested.get(designer, ()))
  if more := twice(searched):
    out.append(f'random with twice as many trials: {100 * more[-1]:.2f} %')
    # Two seeds together are one search of twice the length.
    pairs = itertools.combinations(searched.tested.get('random', ()), 2)
    out[-1] += _on_test([max(pair) for pair in pairs])
  return out


def _on_test(found: Sequence[Tested]) -> str:
  if not found:
    return ''
  scores = [100 * one.test for one in found]
  spread = f' (from {min(scores):.2f} to {max(scores):.2f})'
  several = spread if len(scores) > 1 else ''
  return f'; on the test set {statistics.median(scores):.2f} %{several}'


def _value(name: str, value: float) -> str:
  scaled = value * OBJECTIVES[name][2]
  return f'{scaled:.2f}' if name == 'val_accuracy' else digits(scaled)


def _param(value: Any) -> str:
  if value is None:
    return '–'
  return f'{value:.3g}' if isinstance(value, float) else word(value)
