"""An experiment from its config to its report."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from tsukiji.experiments import (
  lock,
  pool,
  reporting,
  results,
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
  say: Callable[[str], None] = print,
) -> Report:
  """Train, compress, pack, measure and report whatever is not done yet.

  Args:
    config: The experiment; where fields vary, what is best is searched first.
    workdir: Its folder; what is there is not done again.
    say: Is called with a sentence now and then.

  Returns:
    The report, with the rows that `results.json` in the workdir holds.

  Raises:
    ValueError: If anything that was chosen cannot work; mostly before any
      training starts.
    FloatingPointError: If a loss was not finite.
    interrupt.Stopped: If a signal asked; what is done so far is kept.
  """
  with opened(config, workdir) as experiment:
    if results.finished(experiment):
      say(f'{workdir} is finished; nothing to do.')
      return reporting.write(experiment)
    found = experiment
    if config.task in ('search', 'study'):
      found = searching.search(experiment, say)
    pool.run(found)  # trains, compresses and packs: a row a cell
    rows = results.gather(found)
    say('Measuring latency, one thread ...')
    store.write_rows(workdir, timing.timed(found, rows))
    searching.test_best(experiment)
    return reporting.write(experiment)


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: pathlib.Path) -> Iterator[Experiment]:
  """Check a config, load its data, and hold its workdir meanwhile."""
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
