"""Sentences on removed and replaced layers of a network."""

from collections.abc import Sequence

from tsukiji.report.columns import Row
from tsukiji.report.tables import recipe, role

GRIDS = ('quantize', 'binary', 'share')  # families that keep every weight


def removed(rows: Sequence[Row]) -> list[str]:
  """Describe the layers of each compressed recipe, before and after.

  Args:
    rows: Rows of results.json, one per seed; the first of each recipe counts.

  Returns:
    A line for each recipe that removed or replaced something.

  >>> conv = {'name': 'conv1', 'outputs': 32, 'weights': 800, 'nonzero': 800}
  >>> dense = {'recipe': 'dense', 'role': 'reference', 'layers': [conv]}
  >>> half = {**conv, 'outputs': 16, 'weights': 400, 'nonzero': 400}
  >>> removed([dense, {'recipe': 'half', 'layers': [half]}])
  ['half: conv1 32 -> 16 outputs, 800 -> 400 weights']
  """
  first: dict[tuple[str, str], Row] = {}
  for row in rows:
    if row.get('layers'):
      first.setdefault((str(row.get('network')), recipe(row)), row)
  dense = {
    name: row for (name, _), row in first.items() if role(row) == 'reference'
  }
  several = len(dense) > 1
  out = []
  for (network, name), row in first.items():
    if role(row) != 'compressed' or network not in dense:
      continue
    if row.get('family') in GRIDS:
      continue  # a grid puts weights on 0 by itself: that is no removal
    words = _words(dense[network]['layers'], row['layers'])
    if words:
      label = f'{name} ({network})' if several else name
      out.append(f'{label}: {"; ".join(words)}')
  return out


def _words(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
  left = {layer['name']: layer for layer in after}
  had = [layer['name'] for layer in before]
  words = [_change(layer, left.get(layer['name'])) for layer in before]
  words += [
    f'{layer["name"]} new, {layer["weights"]:,} weights'
    for layer in after
    if layer['name'] not in had
  ]
  return list(filter(None, words))


def _change(before: Row, after: Row | None) -> str:
  """Return what was removed from a layer, '' if nothing."""
  if after is None:
    return f'{before["name"]} gone'
  parts = []
  if after['outputs'] != before['outputs']:
    parts.append(f'{before["outputs"]} -> {after["outputs"]} outputs')
  # So does the grid of what is pruned too.
  if after['nonzero'] < 0.95 * before['nonzero']:
    parts.append(f'{before["nonzero"]:,} -> {after["nonzero"]:,} weights')
  remark = after.get('remark', after.get('told'))  # 'told' in older rows
  parts += [remark] if remark else []
  return f'{before["name"]} {", ".join(parts)}' if parts else ''
