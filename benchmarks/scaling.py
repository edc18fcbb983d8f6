"""What a second core gains: the same experiment with one process and with two.

`python -m benchmarks.scaling [--rounds=3] [--only=cells,trials]
[--trees=now=.,before=../before]` runs eight networks, and eight trials of a
random search, in one process, in two, and as two commands of one process each,
which is what the machine can give; in turn, from the beginning each time. It
prints seconds, how much faster two are, and how much faster they could be.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = """
import search
from tsukiji import settings


def get_config(arg: str = ''):
  config = settings.default('search' if arg == 'trials' else 'train')
  sizes = {'conv': (64, 128), 'hidden': (256,)}
  config.networks = {'net': settings.network('tsukijinet2021', sizes=sizes)}
  config.train = settings.training(epochs=24, batch_size=64)
  config.seeds = tuple(range(8))
  if arg == 'trials':
    config.seeds, config.train.epochs = (0,), 1
    config.train.lr = search.log(1e-3, 1e-2)
    config.search = settings.searching(
      designer='random', trials=8, seeds=(0,), epochs=24
    )
  return config
"""
KINDS = ('cells', 'trials')  # eight, of equal length


def start(
  tree: pathlib.Path, kind: str, workers: int, run: pathlib.Path
) -> subprocess.Popen[bytes]:
  """Start a command in a workdir of its own."""
  shutil.rmtree(run, ignore_errors=True)
  argument = '' if kind == 'cells' else f':{kind}'
  args = [
    f'--config={run.parent / "config.py"}{argument}',
    f'--config.workers={workers}',
    f'--workdir={run}',
  ]
  return subprocess.Popen(
    [sys.executable, 'main.py', *args],
    cwd=tree,
    env={**os.environ, 'PYTHONPATH': str(tree), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.DEVNULL,
  )


def seconds(
  tree: pathlib.Path, kind: str, workers: int, copies: int, folder: pathlib.Path
) -> float:
  """Return how long copies of a command take that are started at once."""
  begun = time.monotonic()
  runs = [start(tree, kind, workers, folder / str(i)) for i in range(copies)]
  for one in runs:
    if one.wait():
      raise SystemExit(f'{kind} in {tree} ended with {one.returncode}')
  return time.monotonic() - begun


def main() -> None:
  """Print a line for each kind and tree."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--only', default=','.join(KINDS))
  parser.add_argument('--trees', default=f'now={ROOT}')
  args = parser.parse_args()
  trees = [pair.split('=') for pair in args.trees.split(',')]
  with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    (folder / 'config.py').write_text(CONFIG)
    for kind in args.only.split(','):
      taken: dict[str, list[float]] = {}
      for _ in range(args.rounds):
        for name, place in trees:
          tree = pathlib.Path(place).absolute()
          for label, workers, copies in (
            ('one', 1, 1),
            ('two', 2, 1),
            ('two commands', 1, 2),
          ):
            took = seconds(tree, kind, workers, copies, folder)
            taken.setdefault(f'{name}, {label}', []).append(took)
      for name, _ in trees:
        one, two, both = (
          statistics.median(taken[f'{name}, {label}'])
          for label in ('one', 'two', 'two commands')
        )
        row = {'kind': kind, 'tree': name, 'one': one, 'two': two}
        row |= {'faster': one / two, 'machine': 2 * one / both}
        rounded = {
          k: round(x, 2) if isinstance(x, float) else x for k, x in row.items()
        }
        print(json.dumps(rounded), flush=True)


if __name__ == '__main__':
  main()
