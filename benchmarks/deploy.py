"""Time packed networks in every engine, and weigh them against archivers.

`python -m benchmarks.deploy DENSE.tsk OTHER.tsk ... [--threads=1]` runs every
network in every engine that is installed, in turn, on as many cores as threads,
and puts its rows into `results/engines.json` (`--out`), in place of rows of the
same networks and threads. Speed-ups are the median of paired ratios to the
fastest float32 deployment of DENSE at the same batch size. The floor of an
engine is its call of a network of one number. `--clock=process` counts the
process's time only, for machines that are not idle.
"""

import argparse
import dataclasses
import json
import lzma
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from tsukiji.config import settings
from tsukiji.console import plain
from tsukiji.deploy import artefact
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.experiments import store
from tsukiji.measure import fastest, sampling
from tsukiji.models import spec as sp

FILE = pathlib.Path(__file__).parent.parent / 'results/engines.json'
BATCHES = (1, 64)
CLOCKS = {'process': time.process_time_ns, 'wall': time.perf_counter_ns}
FLOOR = 'floor'
Row = dict[str, Any]


def trivial() -> Artefact:
  """Return a network of one number."""
  layers = (sp.Flatten(), sp.Dense(name='one', features=1))
  spec = sp.Spec(name=FLOOR, input_shape=(1, 1, 1), layers=layers)
  params = {'one': {'kernel': np.ones((1, 1), np.float32)}}
  params['one']['bias'] = np.zeros(1, np.float32)
  variables = {'params': params, 'batch_stats': {}}
  net = lower(spec, variables)
  return dataclasses.replace(artefact.of(*net), bytes=len(pack.pack(*net)))


def timed(nets: dict[str, Artefact], args: argparse.Namespace) -> list[Row]:
  """Return a row a network: its times in every engine, and its fastest.

  Args:
    nets: By name, the dense one first.
    args: `threads`, `repeats`, `seconds` and `clock`.

  Returns:
    The rows.
  """
  rows: dict[str, Row] = {
    name: {
      'name': name,
      'threads': args.threads,
      'clock': args.clock,
      'command': shlex.join(
        ['python', '-m', 'benchmarks.deploy', *sys.argv[1:]]
      ),
    }
    for name in (*nets, FLOOR)
  }
  for batch in BATCHES:
    runs = {
      (name, candidate.engine): candidate.run
      for name, net in {**nets, FLOOR: trivial()}.items()
      for candidate in fastest.candidates(
        net, batch, settings.ENGINES, args.threads
      )
    }
    samples = sampling.sample(
      {' '.join(key): run for key, run in runs.items()},
      repeats=args.repeats,
      seconds=args.seconds,
      clock=CLOCKS[args.clock],
    )
    middle = {key: float(np.median(samples[' '.join(key)])) for key in runs}
    dense = next(iter(nets))
    base = min((key for key in runs if key[0] == dense), key=middle.__getitem__)
    ratios = sampling.ratios(samples, ' '.join(base))
    for name, row in rows.items():
      own = [key for key in runs if key[0] == name]
      best = min(own, key=middle.__getitem__)
      row[f'batch_{batch}'] = {
        'engine': best[1],
        'speedup_rate': ratios[' '.join(best)],
        **sampling.quartiles(samples[' '.join(best)]),
        'engines': {engine_: middle[name, engine_] for _, engine_ in own},
      }
  return list(rows.values())


def weighed(net: Artefact) -> dict[str, int]:
  """Return the bytes of a file, and of its tensors in other archives."""
  leaves = map(np.asarray, jax.tree.leaves(net.variables))
  raw = b''.join(
    np.packbits(x).tobytes() if x.dtype == bool else x.tobytes() for x in leaves
  )
  sizes = {'bytes': net.bytes, 'raw': len(raw)}
  sizes['xz'] = len(lzma.compress(raw, preset=9))
  if shutil.which('zstd'):
    done = subprocess.run(
      ['zstd', '-19', '-c'], input=raw, capture_output=True, check=True
    )
    sizes['zstd'] = len(done.stdout)
  return sizes


def table(rows: Sequence[Row]) -> Table:
  """Return rows for people; a rate below 1 is marked."""
  out = Table(box=None, pad_edge=False)
  heads = [f'{x}, batch {n}' for n in BATCHES for x in ('engine', 'us', 'rate')]
  for head in ('name', 'bytes', 'xz', 'zstd', *heads):
    out.add_column(head, justify='left' if head[:4] != 'byte' else 'right')
  for row in rows:
    cells = []
    for batch in BATCHES:
      one = row[f'batch_{batch}']
      rate = one['speedup_rate']
      mark = ' slower' if rate < 1 else ''
      cells += [one['engine'], f'{1000 * one["p50"]:.1f}', f'{rate:.2f}{mark}']
    sizes = row.get('sizes', {})
    weights = [str(sizes.get(key, '')) for key in ('bytes', 'xz', 'zstd')]
    out.add_row(plain(row['name']), *weights, *cells)
  return out


def merged(path: pathlib.Path, rows: Sequence[Row]) -> list[Row]:
  """Return new rows behind those of a file that are of other runs."""
  new = {(row['name'], row['threads']) for row in rows}
  old = json.loads(path.read_text())['rows'] if path.exists() else []
  kept = [row for row in old if (row['name'], row['threads']) not in new]
  return [*kept, *rows]


def main(argv: Sequence[str] | None = None) -> None:
  """Measure, print, and write."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('dense', type=pathlib.Path)
  parser.add_argument('others', type=pathlib.Path, nargs='*')
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--repeats', type=int, default=200)
  parser.add_argument('--seconds', type=float, default=60.0)
  parser.add_argument('--clock', choices=CLOCKS, default='wall')
  parser.add_argument('--out', type=pathlib.Path, default=FILE)
  args = parser.parse_args(argv)
  if hasattr(os, 'sched_setaffinity'):  # before JAX starts its threads
    cores = sorted(os.sched_getaffinity(0))[-args.threads :]
    os.sched_setaffinity(0, cores)
  start = time.time()
  nets = {path.stem: artefact.load(path) for path in (args.dense, *args.others)}
  rows = timed(nets, args)
  for row in rows:
    if row['name'] in nets:
      row['sizes'] = weighed(nets[row['name']])
  Console(width=None if sys.stdout.isatty() else 160).print(table(rows))
  content = {
    'command': 'python -m benchmarks.deploy DENSE.tsk OTHER.tsk ...',
    'machine': store.machine(),
    'commit': store.commit(),
    'minutes': round((time.time() - start) / 60, 1),
    'rows': merged(args.out, rows),
  }
  store.write_json(args.out, content)


if __name__ == '__main__':
  main()
