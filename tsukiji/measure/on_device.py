"""Energy of a C file on a device: modeled, or measured by a user's function.

`python -m tsukiji.measure.on_device FILE.tsk` prints the work of each step of
an inference. The function of `--joules=package.module:function` takes the file
(`Source`) and returns the microjoules that an inference took on a board.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as Grid

from tsukiji.console import plain, printable
from tsukiji.deploy import artefact, engines
from tsukiji.deploy.c import footprint
from tsukiji.deploy.c.source import Source
from tsukiji.deploy.c.workload import Work
from tsukiji.errors import expect
from tsukiji.measure.energy import HOROWITZ45, Table, memory

Joules = Callable[[Source], float]


class Spent(NamedTuple):
  """Microjoules of an inference on a device.

  Attributes:
    compute: Multiply-accumulates.
    flash: Reading constants.
    ram: Reading and writing memory.
    per_step: The sum of these by the name of a step.
    source: 'model:' and the name of the table.
  """

  compute: float
  flash: float
  ram: float
  per_step: dict[str, float]
  source: str

  @property
  def total(self) -> float:
    """The sum of the three parts, microjoules."""
    return self.compute + self.flash + self.ram


def model(source: Source, table: Table = HOROWITZ45) -> Spent:
  r"""Model the energy of one inference of a C file.

  $E = \sum_s n_s (e_\times + e_+) + \frac{F_s}{8} e(F) + \frac{R_s}{8} e(R)$
  with $n_s$ multiply-accumulates of a step, $F_s$ bytes read of constants and
  $R_s$ moved in memory, as `workload` counts them, and $e(X)$ the energy of
  reading 64 bits from a memory of $X$ bytes: all constants $F$, all memory $R$.
  Flash costs what a memory of its size does, since the table has none. Products
  of signs cost two additions of 32 bits a word.

  Args:
    source: The file.
    table: What operations cost.

  Returns:
    Microjoules, in parts.
  """
  flash = memory(source.weight_bytes, table) / 8
  ram = memory(footprint.ram(source), table) / 8
  parts = {
    name: (
      1e-6 * work.products * _each(work, table),
      1e-6 * work.flash * flash,
      1e-6 * (work.loads + work.stores) * ram,
    )
    for name, work in source.work
  }
  compute, constants, moved = (
    sum(part[i] for part in parts.values()) for i in range(3)
  )
  per_step = {name: sum(part) for name, part in parts.items()}
  return Spent(compute, constants, moved, per_step, f'model:{table.name}')


def _each(work: Work, table: Table) -> float:
  """Return the picojoules of a multiply-accumulate."""
  if work.kind in ('', 'bits'):
    return 2 * table.add['int32']
  add = 'fp32' if work.kind == 'fp32' else 'int32'
  return table.multiply[work.kind] + table.add[add]


def measured(source: Source, joules: str) -> tuple[float, str]:
  """Return the microjoules that a function of the user's says, and its name.

  Args:
    source: The file, to build and to run on a board.
    joules: 'package.module:function'.

  Returns:
    Microjoules of an inference, and 'measured:package.module:function'.

  Raises:
    ValueError: If there is no such function, or it returns no number above 0.
  """
  module, _, name = joules.partition(':')
  fix = 'Name a function of a module that can be imported.'
  try:
    function: Joules = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError):
    expect('joules', False, "'package.module:function'", joules, fix)
  found = function(source)
  is_number = isinstance(found, int | float) and 0 < found < float('inf')
  expect(joules, is_number, 'microjoules of an inference', found)
  return float(found), f'measured:{joules}'


def record(source: Source) -> dict[str, Any]:
  """Return what an inference takes, as the key `device` of a results row.

  Args:
    source: The file.

  Returns:
    Bytes of `flash` and `ram`; `products`, and words of signs (`sign_words`)
    that are multiplied; bytes read of constants (`read`) and moved in memory
    (`moved`); `energy_uj` with its `energy_source`.
  """
  spent, works = model(source), [work for _, work in source.work]
  return {
    'flash': source.weight_bytes,
    'ram': footprint.ram(source),
    'products': sum(x.products for x in works if x.kind != 'bits'),
    'sign_words': sum(x.products for x in works if x.kind == 'bits'),
    'read': sum(x.flash for x in works),
    'moved': sum(x.loads + x.stores for x in works),
    'energy_uj': spent.total,
    'energy_source': spent.source,
  }


def grid(source: Source, spent: Spent) -> Grid:
  """Return the work of each step, and the sums, as a table."""
  out = Grid(box=None, pad_edge=False)
  out.add_column('step')
  heads = ('products', 'of', 'flash, B', 'loads, B', 'stores, B', 'uJ')
  for head in heads:
    out.add_column(head, justify='right')
  for name, x in source.work:
    energy = f'{spent.per_step[name]:.3f}'
    sizes = (f'{n:,}' for n in (x.flash, x.loads, x.stores))
    out.add_row(plain(name), f'{x.products:,}', x.kind, *sizes, energy)
  works = [x for _, x in source.work]
  sums = (
    sum(x.flash for x in works),
    sum(x.loads for x in works),
    sum(x.stores for x in works),
  )
  products = sum(x.products for x in works)
  out.add_section()
  out.add_row(
    'sum', f'{products:,}', '', *(f'{n:,}' for n in sums), f'{spent.total:.3f}'
  )
  return out


def main(argv: Sequence[str]) -> int:
  """Print the work and the energy of an inference of each file."""
  parser = argparse.ArgumentParser(prog='tsukiji.measure.on_device')
  parser.add_argument('files', nargs='+', metavar='FILE.tsk')
  parser.add_argument('--joules', default='', help='package.module:function')
  args = parser.parse_args(argv)
  console = Console(width=None if sys.stdout.isatty() else 120)
  try:
    for name in args.files:
      source = engines.written(artefact.load(name))
      spent = model(source)
      console.print(plain(f'{name}: {source.name}, {spent.source}'))
      console.print(grid(source, spent))
      if args.joules:
        own, label = measured(source, args.joules)
        console.print(plain(f'{own:.3f} uJ, {label}'))
  except (ValueError, OSError) as e:
    print('Error:', *printable(e).split(), file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
