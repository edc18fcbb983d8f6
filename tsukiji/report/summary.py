"""Summary rows over seeds: mean, deviation, difference to the reference."""

import numbers
import statistics
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from tsukiji.report.columns import Row, number
from tsukiji.report.tables import recipe, role

Line: TypeAlias = tuple[Row, list[Row]]  # a summary row and its seeds

TEXT = (
  'network',
  'dataset',
  'recipe',
  'family',
  'mode',
  'method',
  'energy_source',
  'readings',
  'reference',
)
SCORES = ('accuracy', 'r2', 'recall_at_1')
PER_SEED = (
  'seed',
  'n_seeds',
  *(f'{key}_std' for key in SCORES),
)  # their mean is meaningless
SETTINGS = ('engine', 'threads')
QUARTILES = ('p25', 'p50', 'p75')


def summarize(rows: Sequence[Row]) -> list[Row]:
  """Summarize the seeds of each recipe in one row.

  Rows are alike if network, recipe, dataset and role are; the role is kept as
  `of`. A number is the mean over the rows that have it, `accuracy_std` the
  sample standard deviation (n - 1), absent for one seed. A summary among
  `rows` keeps what its seeds do not say, so summarizing twice is summarizing.

  Args:
    rows: Rows of results.json, of any role.

  Returns:
    Summary rows, in the order in which the first of their rows came.

  >>> seeds = [{'recipe': 'int8', 'accuracy': a} for a in (0.5, 0.75)]
  >>> [row] = summarize(seeds)
  >>> row['accuracy'], row['n_seeds'], row['of']
  (0.625, 2, 'compressed')
  """
  return [_summary(group) for group in _groups(rows)]


def lines(rows: Sequence[Row]) -> list[Line]:
  """Pair each summary row with its seeds, the references of a dataset first.

  Rows gain `difference`: accuracy less the mean accuracy of the reference of
  their dataset and of the network they name as theirs, else of their own
  network, else of the only reference of the dataset.
  """
  groups = _groups(rows)
  means = [_summary(group) for group in groups]
  out: list[Line] = []
  for row, group in zip(means, groups, strict=True):
    base = _reference(row, means)
    out.append(
      (_against(row, base), [_against(s, base) for s in _seeds(group)])
    )
  datasets = list(dict.fromkeys(row.get('dataset') for row in means))
  where = {dataset: place for place, dataset in enumerate(datasets)}
  return sorted(
    out, key=lambda o: (where[o[0].get('dataset')], role(o[0]) != 'reference')
  )


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
  """Gather rows of the same network, recipe, dataset and role."""
  groups: dict[tuple[str, ...], list[Row]] = {}
  for row in rows:
    where = (str(row.get('network')), str(row.get('dataset')))
    groups.setdefault((*where, recipe(row), role(row)), []).append(row)
  return list(groups.values())


def _seeds(group: Iterable[Row]) -> list[Row]:
  return [row for row in group if row.get('role') != 'summary']


def _summary(group: Sequence[Row]) -> Row:
  earlier = [row for row in group if row.get('role') == 'summary']
  known = dict(earlier[-1]) if earlier else {}
  if not (seeds := _seeds(group)):
    return known
  known = {key: known[key] for key in known if key not in PER_SEED}
  return known | _means(seeds)


def _means(seeds: Sequence[Row]) -> Row:
  out: Row = {'name': recipe(seeds[0]), 'role': 'summary', 'of': role(seeds[0])}
  out |= {
    key: seeds[0][key] for key in TEXT if key in seeds[0] and _agree(seeds, key)
  }
  for key in dict.fromkeys(key for row in seeds for key in row):
    if key not in PER_SEED and _numbers(seeds, key):
      out[key] = _mean(seeds, key)
  if not _agree([row for row in seeds if 'energy_uj' in row], 'energy_source'):
    out.pop('energy_uj', None)  # measured and modeled have no common mean
  out |= _course(seeds)
  scored = {key: _numbers(seeds, key) for key in SCORES}
  for key, values in scored.items():
    if len(values) > 1:
      out[f'{key}_std'] = statistics.stdev(values)
  if latency := _latency(seeds):
    out['latency_ms'] = latency
  return out | {'n_seeds': max(map(len, scored.values())) or len(seeds)}


def _course(seeds: Sequence[Row]) -> Row:
  """Average the validation accuracies epoch by epoch."""
  found = [row['val_course'] for row in seeds if row.get('val_course')]
  by_epoch = list(zip(*found, strict=False))
  out: Row = {}
  if found:
    out['val_course'] = [statistics.fmean(values) for values in by_epoch]
  if len(found) > 1:
    out['val_course_std'] = [statistics.stdev(values) for values in by_epoch]
  return out


def _numbers(rows: Iterable[Row], key: str) -> list[float]:
  found = (number(row, key) for row in rows)
  return [value for value in found if value is not None]


def _mean(rows: Iterable[Row], key: str) -> float:
  """Return the mean; that of bytes, and of integers if integral, as an int."""
  found = [row[key] for row in rows if number(row, key) is not None]
  mean = statistics.fmean(found)
  integral = all(isinstance(value, numbers.Integral) for value in found)
  return round(mean) if key == 'bytes' or integral and mean % 1 == 0 else mean


def _agree(rows: Sequence[Row], key: str) -> bool:
  return all(row.get(key) == rows[0].get(key) for row in rows)


def _latency(seeds: Iterable[Row]) -> Row:
  """Average the quartiles of the seeds timed under the first one's settings."""
  found = [row['latency_ms'] for row in seeds if row.get('latency_ms')]
  fixed = {k: found[0][k] for k in SETTINGS if k in found[0]} if found else {}
  same = [t for t in found if all(t.get(k) == fixed.get(k) for k in SETTINGS)]
  out = dict(fixed)
  for batch in dict.fromkeys(key for one in same for key in one):
    if batch.startswith('batch_'):
      out[batch] = _quartiles([one[batch] for one in same if one.get(batch)])
  return out


def _quartiles(timings: Sequence[Row]) -> Row:
  found = {key: _numbers(timings, key) for key in QUARTILES}
  return {key: statistics.fmean(v) for key, v in found.items() if v}


def _reference(row: Row, means: Iterable[Row]) -> Row:
  """Find the reference of a row's network, or the only one of its dataset."""
  dataset = row.get('dataset')
  found = [m for m in means if role(m) == 'reference']
  found = [m for m in found if m.get('dataset') == dataset]
  wanted = row.get('reference') or row.get('network')
  own = [m for m in found if m.get('network') == wanted]
  return (own or (found if len(found) == 1 else []) or [{}])[0]


def _against(row: Row, base: Row) -> Row:
  value, reference = number(row, 'accuracy'), number(base, 'accuracy')
  if value is None or reference is None:
    return dict(row)
  return {**row, 'difference': value - reference}
