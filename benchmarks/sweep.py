"""What the driver of a search does: a sweep whose trials only sleep.

`python -m benchmarks.sweep --slots=1000 --trials=10000 --seconds=1` runs a
random search on SQLite whose trials sleep in one worker of many threads. It
prints a line for each number of slots: seconds in all and at best, milliseconds
of the driver's process (scheduler and storage included) a trial, its memory.
"""

import argparse
import functools
import json
import logging
import pathlib
import resource
import tempfile
import time

import dask
import optuna
from distributed import Client, Nanny, Scheduler, SpecCluster
from ml_collections import ConfigDict

import search
from search import designer, storage, study
from search import space as spaces
from search.designer import Values
from search.study import Plan, Study, Trial
from tests.tsukiji.experiments.test_executor import DATA
from tsukiji.data.datasets import Data
from tsukiji.experiments import cluster, worker
from tsukiji.experiments.executor import Executor, Future, Tell
from tsukiji.experiments.sweep import driver


def nap(tell: Tell, data: Data, x: float, seconds: float) -> list[Values]:
  """Sleep in place of training."""
  time.sleep(seconds)
  return [Values(((x - 0.3) ** 2,))]


def space() -> spaces.Space:
  """Return a space of four parameters."""
  config = ConfigDict()
  config.x = search.float(0.0, 1.0)
  config.lr = search.log(1e-4, 1e-1)
  config.width = search.integer(8, 64)
  config.kind = search.choice('a', 'b', 'c')
  return spaces.of(config)


def swept(
  chosen: Executor, trials: int, seconds: float, url: str
) -> dict[str, float]:
  """Run a sweep and return its figures."""
  area = space()
  plan = Plan('sweep', area, designer.random(area), trials)
  begun = study.begun(plan, storage.opened(url))

  def start(own: Study, asked: list[Trial]) -> Future:
    (one,) = asked
    return chosen.submit(lambda _: None, nap, one.config.x, seconds)

  wall, cpu = time.perf_counter(), time.process_time()
  (done,) = driver.drive([begun], chosen, 1, start, lambda _: None)
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  assert len(done.state.observations) == trials
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {
    'slots': chosen.slots(),
    'trials': trials,
    'seconds': round(wall, 1),
    'at_best': round(seconds * -(-trials // chosen.slots()), 1),
    'driver_ms_a_trial': round(1e3 * cpu / trials, 2),
    'memory_mib': used // 1024,
  }


def stored(trials: int, url: str) -> float:
  """Return the milliseconds a trial of asking and telling alone."""
  area = space()
  plan = Plan('stored', area, designer.random(area), trials)
  begun = time.process_time()
  study.run(plan, storage.opened(url), lambda config: Values((config.x,)))
  return 1e3 * (time.process_time() - begun) / trials


def main() -> None:
  """Read the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--slots', default='10,100,1000')
  parser.add_argument('--trials', type=int, default=10_000)
  parser.add_argument('--seconds', type=float, default=1.0)
  args = parser.parse_args()
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  logging.getLogger('distributed').setLevel(logging.CRITICAL)
  many = [int(x) for x in args.slots.split(',')]
  options = {'host': '127.0.0.1', 'memory_limit': 0, 'dashboard': False}
  options |= {'nthreads': max(many), 'silence_logs': logging.CRITICAL}
  place = {'host': '127.0.0.1', 'port': 0, 'dashboard_address': '127.0.0.1:0'}
  with (
    tempfile.TemporaryDirectory() as folder,
    dask.config.set(cluster.SETTINGS),
    SpecCluster(
      scheduler={'cls': Scheduler, 'options': place},
      workers={0: {'cls': Nanny, 'options': options}},
    ) as made,
    Client(made, set_as_default=False) as client,
  ):
    client.register_plugin(worker.Holder('sweep', DATA))
    print(json.dumps({'asking_and_telling_ms': stored(300, _url(folder, 0))}))
    for slots in many:
      count = functools.partial(int, slots)
      chosen = cluster.executor_of(client, 'sweep', count, {})
      trials = min(args.trials, 10 * slots)
      url = _url(folder, slots)
      print(json.dumps(swept(chosen, trials, args.seconds, url)), flush=True)


def _url(folder: str, number: int) -> str:
  return f'sqlite:///{pathlib.Path(folder) / f"{number}.db"}'


if __name__ == '__main__':
  main()
