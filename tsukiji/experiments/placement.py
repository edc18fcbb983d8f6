"""Where the tasks of a stage run: in this process, or on a cluster.

A cluster is started when a stage of an experiment has work for two workers;
nothing of Dask is imported before.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from tsukiji.data.datasets import Data
from tsukiji.experiments import executor
from tsukiji.experiments.executor import Executor, Executors


@contextlib.contextmanager
def opened(
  config: ConfigDict, folder: pathlib.Path, data: Data
) -> Iterator[Executors]:
  """Yield what gives an executor to each stage of an experiment.

  Args:
    config: Its `cluster` says where workers are.
    folder: The workdir, which all workers share.
    data: Given to every task; it travels once to each worker.
  """
  with contextlib.ExitStack() as stack:
    started: dict[int, Executor] = {}

    def choose(tasks: int, wanted: int) -> Executor:
      local = config.cluster.kind == 'local'
      count = min(tasks, executor.workers(wanted)) if local else wanted
      if local and count <= 1:
        return executor.here(data)
      fits = [other for n, other in started.items() if n >= count]
      if fits:
        return executor.limited(fits[0], count) if local else fits[0]
      from tsukiji.experiments import cluster

      stack.close()  # one of fewer workers
      started.clear()
      made = cluster.opened(config.cluster, count, folder, data)
      started[count] = stack.enter_context(made)
      return started[count]

    yield choose
