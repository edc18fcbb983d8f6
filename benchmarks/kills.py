"""Kill processes of experiments at random, and compare what comes out.

`python -m benchmarks.kills` runs each command of `COMMANDS` undisturbed, then
with kills (SIGKILL to the driver, in which the scheduler is, or to a worker),
and again after each end of the driver. It writes a table: whether packed files
are the same byte for byte, and trials neither lost nor doubled.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
SEARCH = (
  '--config=configs/search.py:tiny',
  '--config.search.designer=random',
  '--config.search.trials=24',
  '--config.search.epochs=2',
  '--config.search.workers=2',
  '--config.workers=2',
)
# From one kill to the next, as parts of what the command takes undisturbed.
WAIT = (0.05, 0.25)
COMMANDS = {
  'quickstart': (
    '--config=configs/quickstart.py:tiny',
    '--config.train.epochs=3',
    '--config.finetune.epochs=3',
    '--config.workers=2',
  ),
  'search, SQLite': SEARCH,
  'search, PostgreSQL': SEARCH,
  'study': (
    '--config=configs/study.py:tiny',
    '--config.search.workers=2',
    '--config.search.trials=4',
    '--config.recipe_search.workers=2',
    '--config.recipe_search.trials=4',
    '--config.search.designer=random',
    '--config.recipe_search.designer=random',
    # Times are measured, and never the same.
    '--config.recipe_search.objectives=("val_accuracy", "bytes", "energy_uj")',
    '--config.workers=2',
  ),
}


class Outcome(NamedTuple):
  """What has come of a command.

  Attributes:
    kills: By role.
    starts: How often it was run.
    minutes: In all.
  """

  kills: Counter[str]
  starts: int
  minutes: float


def start(args: tuple[str, ...]) -> subprocess.Popen[bytes]:
  """Start the command."""
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen(
    [sys.executable, 'main.py', *args],
    cwd=ROOT,
    env=env,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    start_new_session=True,
  )


def workers(driver: int) -> list[int]:
  """Return the worker processes of a driver."""
  found = []
  for path in pathlib.Path(f'/proc/{driver}/task').glob('*/children'):
    for pid in path.read_text().split():
      with contextlib.suppress(OSError):
        text = pathlib.Path(f'/proc/{pid}/cmdline').read_text()
        found += [int(pid)] if 'spawn_main' in text else []
  return found


def run(
  args: tuple[str, ...], kills: int, seed: int, whole: float = 0.0
) -> Outcome:
  """Run a command to its end through so many kills.

  Args:
    args: Its flags.
    kills: How many there are.
    seed: Of their times.
    whole: Minutes that the command takes undisturbed.
  """
  drawn, killed, starts = random.Random(seed), Counter[str](), 0
  begun = time.monotonic()
  while True:
    process, starts = start(args), starts + 1
    while process.poll() is None and killed.total() < kills:
      until = time.monotonic() + 60 * whole * drawn.uniform(*WAIT)
      while process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
      others = workers(process.pid)
      if process.poll() is None:
        if others and drawn.random() < 0.5:
          os.kill(drawn.choice(others), signal.SIGKILL)
          killed['worker'] += 1
        else:
          process.kill()
          killed['driver'] += 1
    _, said = process.communicate()
    if process.returncode == 0:
      minutes = (time.monotonic() - begun) / 60
      return Outcome(killed, starts, minutes)
    if process.returncode != -signal.SIGKILL:
      raise SystemExit(f'{args}: {process.returncode} {said.decode()}')


def files(folder: pathlib.Path) -> dict[str, bytes]:
  """Return the packed files of a workdir."""
  return {x.name: x.read_bytes() for x in (folder / 'artefacts').glob('*.tsk')}


def tried(url: str) -> list[Any]:
  """Return the number, state, params and values of all trials."""
  import optuna

  optuna.logging.set_verbosity(optuna.logging.ERROR)
  found = []
  for i, name in enumerate(sorted(optuna.get_all_study_names(url))):
    for one in optuna.load_study(storage=url, study_name=name).trials:
      found.append((i, one.number, one.state.name, one.params, one.values))
  return found


def compared(
  name: str, folder: pathlib.Path, kills: int, urls: tuple[str, str] | None
) -> dict[str, Any]:
  """Run a command undisturbed and with kills; return a row."""
  whole, killed = folder / f'{name}-whole', folder / f'{name}-killed'
  stored = urls or tuple(f'sqlite:///{x}/study.db' for x in (whole, killed))
  outcomes: list[Outcome] = []
  for place, url, count in ((whole, stored[0], 0), (killed, stored[1], kills)):
    more = (f'--workdir={place}',)
    more += (f'--config.search.storage={url}',) if urls else ()
    taken = outcomes[0].minutes if outcomes else 0.0
    outcomes.append(run((*COMMANDS[name], *more), count, len(name), taken))
  row: dict[str, Any] = {
    'command': name,
    'kills': dict(outcomes[1].kills),
    'starts': outcomes[1].starts,
    'minutes': [round(x.minutes, 2) for x in outcomes],
    'files': len(files(whole)),
    'same_bytes': files(whole) == files(killed),
  }
  if 'quickstart' not in name:
    one, other = (tried(url) for url in stored)
    row |= {'trials': len(one), 'same_trials': one == other}
  return row


def main() -> None:
  """Run all commands."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', default='/tmp/kills')
  parser.add_argument('--kills', type=int, default=8, help='of each command')
  parser.add_argument('--only', default=','.join(COMMANDS).replace(', ', '; '))
  args = parser.parse_args()
  folder = pathlib.Path(args.folder)
  rows = []
  for name in COMMANDS:
    if name.replace(', ', '; ') not in args.only.split(','):
      continue
    if 'PostgreSQL' in name:
      from tests import postgres

      with postgres.server() as url, postgres.server() as other:
        rows.append(compared(name, folder, args.kills, (url, other)))
    else:
      rows.append(compared(name, folder, args.kills, None))
    print(json.dumps(rows[-1]), flush=True)
    (folder / 'kills.json').write_text(json.dumps(rows, indent=1))


if __name__ == '__main__':
  main()
