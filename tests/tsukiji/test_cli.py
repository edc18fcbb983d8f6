"""The command line: what it refuses, before anything is started."""

import io
import pathlib
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from tests.tsukiji.experiments.test_store import row
from tsukiji import cli, errors
from tsukiji.experiments import reporting


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--config=configs/nope.py'], 'configs/nope.py'),
    (['--config.trian.lr=0.1'], "Nearest: 'train'"),
    (['--config.train.lr=fast'], 'lr'),
    (['--config.task=tain'], "Nearest: 'train'"),
    (['--config.dataset.name=fashon_mnist'], 'fashion_mnist'),
    (['--config.recipes.int8.method=quantize.int9()'], 'quantize.int8'),
    (['--config.recipes.int8.method=quantize.int8(' + '1, ' * 20_000], '...'),
    (['--workdir=/dev/null/here'], 'folder that can be written'),
    (['--cofnig=1'], "Nearest: 'config'"),
    (['--config'], 'expected one argument'),
    (['stray'], "expected flags only, got 'stray'"),
    (['--config.seeds=(0,0)'], 'config.seeds: expected each once'),
    (['--config.workers=None'], 'config.workers: expected a value like 0'),
    (['--config.measure.batches=(1000000000,)'], 'GiB'),
    (['--config.train.batch_size=5000'], 'training examples, got 5000'),
  ],
)
def test_a_mistake_is_one_short_line(
  args: list[str], message: str, tmp_path: pathlib.Path
) -> None:
  defaults = ['--config=configs/quickstart.py:tiny', f'--workdir={tmp_path}/w']
  with pytest.raises((ValueError, OSError)) as raised:
    cli.run(cli.parse([*defaults, *args]), Console(file=io.StringIO()))
  said = errors.line(raised.value)
  assert message in said
  assert len(said) <= errors.LIMIT
  assert not (tmp_path / 'w').exists()


def test_an_error_without_a_text_has_its_name() -> None:
  said = cli._said(TimeoutError())
  why = 'no reason given. Run it with --debug to see where.'
  assert said == f'TimeoutError: {why}'
  assert cli._said(ValueError('x: expected y.')) == 'x: expected y.'


def test_earlier_names_are_printed_once(
  capsys: pytest.CaptureFixture[str],
) -> None:
  command = cli.parse(['--config=quickstart', '--config.train.optimiser=sgd'])
  assert command.config.train.optimizer == 'sgd'
  assert capsys.readouterr().err == (
    "Warning: config field 'optimiser' is now called 'optimizer'\n"
  )


def test_the_folder_of_an_experiment_is_named_by_it() -> None:
  names = [
    cli.parse(['--config=quickstart:tiny', *more]).workdir.name
    for more in ([], ['--config.workers=3'], ['--config.train.lr=0.5'])
  ]
  assert names[0] == names[1] != names[2]
  assert all(name.startswith('quickstart-') for name in names)


def test_names_of_files_are_printed_as_they_are() -> None:
  file = io.StringIO()
  path = pathlib.Path('runs/run[red]/\x1b[2J[/x]/report.html')
  one = row('net-0-dense') | {'role': 'reference', 'accuracy': 0.5}
  found = reporting.Report([one], (), path)
  reporting.show(found, Console(file=file, width=120))
  assert 'Report: runs/run[red]/[2J[/x]/report.html' in file.getvalue()


# A signal arrives when a package is imported.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a terminal
class Finder:
  def find_spec(self, name, *_):
    if name == {!r}:
      os.kill(os.getpid(), {})
sys.meta_path.insert(0, Finder())
{}
"""


AS_MODULE = 'from tsukiji.__main__ import main; main()'
AS_FILE = "import runpy; runpy.run_path('main.py', run_name='__main__')"


@pytest.mark.parametrize(
  ('during', 'signum', 'code'),
  [
    ('jax', signal.SIGINT, 130),
    ('jax', signal.SIGTERM, 143),
    # Before there are handlers; a shell reports 143 for the second one.
    ('tsukiji', signal.SIGINT, 130),
    ('tsukiji', signal.SIGTERM, -signal.SIGTERM),
  ],
)
def test_a_signal_during_imports_says_nothing(
  during: str, signum: signal.Signals, code: int
) -> None:
  command = AS_MODULE if during == 'jax' else AS_FILE
  done = subprocess.run(
    [sys.executable, '-c', INTERRUPTED.format(during, int(signum), command)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stderr) == (code, '')
