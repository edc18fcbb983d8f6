"""Run one experiment: `python main.py --config=configs/NAME.py[:ARG]`."""

import os
import pathlib
import sys
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from tsukiji import cli, interrupt
from tsukiji.experiments import store

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/quickstart.py')
_WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the experiment.')
_DEBUG = flags.DEFINE_boolean('debug', False, 'Show where an error came from.')


def run() -> None:
  """Check everything, then do what `config.task` says."""
  try:
    config = _CONFIG.value.lock()
    file = config_flags.get_config_filename(flags.FLAGS['config'])
    folder = pathlib.Path(_WORKDIR.value or store.named(file, config))
    prepared = cli.prepare(config, folder)
    store.claim(folder, config)
    interrupt.listen()
    console = Console(width=None if sys.stdout.isatty() else 120)
    cli.TASKS[config.task](prepared, console)
  except interrupt.Stopped as e:
    sys.exit(128 + e.signum)
  except (ValueError, OSError, FloatingPointError) as e:
    _fail(e, _DEBUG.value, 3 if isinstance(e, FloatingPointError) else 2)


def _fail(error: Exception, debug: bool, code: int) -> NoReturn:
  if debug:
    raise error
  print('Error:', *str(error).split(), file=sys.stderr)
  sys.exit(code)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except Exception as e:  # a config file may raise anything
    _fail(e, '--debug' in argv, 2)


def main(_: list[str]) -> None:
  """Keep compiled programs between runs and start."""
  logging.set_verbosity(logging.ERROR)
  cache = os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))
  for name, value in (
    ('jax_compilation_cache_dir', f'{cache}/tsukiji/xla'),
    ('jax_persistent_cache_min_compile_time_secs', 0.0),
  ):
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # for the processes we start
  run()


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
