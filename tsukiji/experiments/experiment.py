"""An experiment from its config to its report."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from tsukiji.config import budget
from tsukiji.experiments import (
  lock,
  placement,
  reporting,
  results,
  running,
  searching,
  store,
  timing,
)
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.prepare import prepare
from tsukiji.experiments.reporting import Report


def train_and_compress(
  config: ConfigDict,
  workdir: pathlib.Path,
  log: Callable[[str], None] = print,
) -> Report:
  """Train, compress, pack, measure and report an experiment.

  Args:
    config: The experiment; if fields vary, the best values are searched first.
    workdir: Its folder; finished runs in it are not repeated.
    log: Called with messages of progress.

  Returns:
    The report, with the rows that `results.json` in the workdir holds.

  Raises:
    ValueError: If a setting is not valid; with few exceptions before any
      training starts.
    FloatingPointError: If a loss was not finite.
    interrupt.Stopped: On SIGINT or SIGTERM; finished runs are kept.
  """
  with opened(config, workdir) as experiment:
    if results.finished(experiment):
      log(f'{workdir} is finished; nothing to do.')
      return reporting.write(experiment)
    found = experiment
    with placement.opened(config, workdir, experiment.data) as executors:
      if config.task in ('search', 'study'):
        found = searching.search(experiment, executors, log)
      running.run(found, executors)  # a row a cell: trained, packed
    rows = results.gather(found)
    log('Measuring latency, one thread ...')
    rows = timing.timed(found, rows)
    if budget.limits(config):
      searching.deliver(experiment, found, rows, log)
    store.write_rows(workdir, rows)
    searching.test_best(experiment)
    return reporting.write(experiment)


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: pathlib.Path) -> Iterator[Experiment]:
  """Check a config, load its data, and lock its workdir."""
  with contextlib.ExitStack() as stack:
    store.expect_place(workdir)
    there = workdir.is_dir()
    if there:
      stack.enter_context(lock.held(workdir))
    experiment = prepare(config, workdir)
    store.claim(workdir, config)
    if not there:
      stack.enter_context(lock.held(workdir))
    yield experiment
