"""What networks take on a device, by their C files."""

from collections.abc import Sequence

from tsukiji.report.columns import Row, digits
from tsukiji.report.summary import Line
from tsukiji.report.tables import names

HEAD = 'On a device, as C'


def table(lines: Sequence[Line]) -> list[list[str]]:
  """Return flash, RAM, work and energy as rows of text, the heads first.

  Args:
    lines: Summary rows, each with its seeds; the first that has a C file
      counts.

  Returns:
    The table; empty without C files.

  >>> device = {'flash': 5120, 'ram': 2048, 'products': 81920, 'sign_words': 0}
  >>> device |= {'read': 90112, 'moved': 10240, 'energy_uj': 3.21}
  >>> device |= {'energy_source': 'model:x'}
  >>> row = {'recipe': 'int8', 'device': device}
  >>> table([(row, [row])])[1:]
  [['int8', '5.12', '2.05', '0.0819', '90.1', '10.2', '3.21']]
  """
  found = [
    next((x for x in seeds if 'device' in x), None) for _, seeds in lines
  ]
  named = zip(names([row for row, _ in lines]), found, strict=True)
  own = [(name, row['device']) for name, row in named if row]
  if not own:
    return []
  sources = ', '.join(dict.fromkeys(x['energy_source'] for _, x in own))
  heads = ['recipe', 'flash, kB', 'RAM, kB', '10⁶ products']
  heads += ['read, kB', 'moved, kB', f'µJ, {sources}']
  return [heads, *([name, *_cells(device)] for name, device in own)]


def _cells(device: Row) -> list[str]:
  signs = device['sign_words']
  words = f' + {digits(signs / 1e6)} of 32 signs' if signs else ''
  return [
    digits(device['flash'] / 1e3),
    digits(device['ram'] / 1e3),
    digits(device['products'] / 1e6) + words,
    digits(device['read'] / 1e3),
    digits(device['moved'] / 1e3),
    digits(device['energy_uj']),
  ]
