"""The command line: config file, workdir and task."""

import argparse
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import jax
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console

from tsukiji import errors, interrupt
from tsukiji.config import loading, validate
from tsukiji.console import plain
from tsukiji.experiments import (
  identity,
  publish,
  reporting,
  searching,
  shipping,
  store,
  timing,
)
from tsukiji.experiments.experiment import opened, train_and_compress
from tsukiji.experiments.jobs import Experiment

Task = Callable[[Experiment, Console], None]


class Command(NamedTuple):
  """A parsed command line."""

  config: ConfigDict
  workdir: pathlib.Path
  debug: bool


def main(argv: Sequence[str]) -> int:
  """Run a command line.

  Args:
    argv: The arguments, without the name of the program.

  Returns:
    The exit code: 0, 2 for an error of the user, 3 for a loss that is not
    finite, 130 or 143 for a signal, 1 for anything else.
  """
  interrupt.raise_at_once()
  interrupt.enforce()
  try:
    _keep_programs()
    command = parse(argv)
    with errors.warnings_on_one_line():
      run(command, Console(width=None if sys.stdout.isatty() else 120))
  except interrupt.Stopped as e:
    return 128 + e.signum
  except Exception as e:
    if '--debug' in argv:
      raise
    print('Error:', _said(e), file=sys.stderr)
    return _code(e)
  return 0


def _said(error: Exception) -> str:
  if str(error) and (_code(error) != 1 or isinstance(error, RuntimeError)):
    return errors.line(error)
  said = f'{type(error).__name__}: {str(error) or "no reason given"}'
  return errors.line(f'{said}. Run it with --debug to see where.')


def _code(error: Exception) -> int:
  if isinstance(error, FloatingPointError):
    return 3
  return 2 if isinstance(error, ValueError | OSError) else 1


def _keep_programs() -> None:
  """Keep compiled programs between runs, in all processes."""
  logging.set_verbosity(logging.ERROR)
  cache = os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))
  for name, value in (
    ('jax_compilation_cache_dir', f'{cache}/tsukiji/xla'),
    ('jax_persistent_cache_min_compile_time_secs', 0.0),
  ):
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # for the processes we start


class _Parser(argparse.ArgumentParser):
  """A parser that raises errors instead of exiting."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(f'command line: {message}.')


def parse(argv: Sequence[str]) -> Command:
  """Read the command line and the config file that it names.

  Raises:
    ValueError: If a flag is unknown or its value does not fit, or the config
      file fails.
  """
  parser = _Parser(
    prog='tsukiji',
    allow_abbrev=False,
    description='Train, compress, pack, measure and report.',
    epilog='Any field of a config: --config.FIELD=VALUE, as '
    f'--config.train.lr=0.1. Packaged: {", ".join(loading.packaged())}.',
  )
  parser.add_argument(
    '--config',
    default='configs/quickstart.py',
    help='file or name of a config, with an argument as in quickstart:tiny',
  )
  parser.add_argument('--workdir', default='', help='folder of the experiment')
  parser.add_argument(
    '--debug', action='store_true', help='show where an error came from'
  )
  known, changes = parser.parse_known_args(argv)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', FutureWarning)
    config = loading.load(known.config, changes)
  for text in dict.fromkeys(str(one.message) for one in caught):
    print('Warning:', errors.line(text), file=sys.stderr)
  validate.check(config)
  file = loading.find(known.config).path
  workdir = known.workdir or _named(file, config)
  return Command(config, pathlib.Path(workdir), known.debug)


def _named(file: pathlib.Path, config: ConfigDict) -> str:
  """Return the default workdir of an experiment."""
  return f'runs/{file.stem}-{identity.digest(config)}'


def run(command: Command, console: Console) -> None:
  """Run `config.task`."""
  config, workdir = command.config, command.workdir
  task = TASKS.get(config.get('task'))
  if task is None:  # one that trains, or none at all, which it refuses
    reporting.show(
      train_and_compress(config, workdir, _saying(console)), console
    )
  else:
    with opened(config, workdir) as experiment:
      task(experiment, console)


def _saying(console: Console) -> Callable[[str], None]:
  return lambda text: console.print(plain(text), soft_wrap=True)


def _bench(experiment: Experiment, console: Console) -> None:
  rows = store.finished_rows(experiment.folder)
  store.write_rows(experiment.folder, timing.timed(experiment, rows))
  reporting.show(reporting.write(experiment), console)


def _evaluate(experiment: Experiment, console: Console) -> None:
  shipping.evaluate(experiment, _saying(console))


def _export(experiment: Experiment, console: Console) -> None:
  shipping.export(experiment, _saying(console))
  reporting.write(experiment)


def _publish(experiment: Experiment, console: Console) -> None:
  rows = store.finished_rows(experiment.folder)
  found = searching.found(experiment)
  path = publish.publish(experiment.folder, rows, searched=found)
  _saying(console)(f'Wrote {path}')


def _report(experiment: Experiment, console: Console) -> None:
  reporting.show(reporting.write(experiment), console)


# Of a finished experiment; all other tasks train.
TASKS: dict[str, Task] = {
  'bench': _bench,
  'evaluate': _evaluate,
  'export': _export,
  'publish': _publish,
  'report': _report,
}
