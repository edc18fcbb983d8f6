"""The command line, the way a newcomer uses it."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.commands import ROOT, once, run, workdir
from tsukiji.deploy import artefact
from tsukiji.measure import fastest

CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*.py') if p.stem[0] != '_')
QUICKSTART = pytest.mark.parametrize(
  'finished',
  [p for p in CONFIGS if p.stem == 'quickstart'],
  ids=['quickstart'],
  indirect=True,
)


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(p, marks=() if p.stem == 'quickstart' else pytest.mark.slow)
    for p in CONFIGS
  ],
  ids=lambda p: p.stem,
)
def finished(
  request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], pathlib.Path, str]:
  folder = workdir(tmp_path_factory, request.param.stem)
  args = [
    f'--config=configs/{request.param.name}:tiny',
    f'--workdir={folder}',
  ]
  if request.param.stem != 'quickstart':  # which shows that workers do
    args += ['--config.workers=1']
  done = once(folder, *args)
  assert done.returncode == 0, done.stderr
  return args, folder, done.stdout


def test_every_config_runs_and_prints_where_the_report_is(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  _, folder, out = finished
  assert 'report.html' in ''.join(out.split())
  for name in ('config.json', 'metrics.jsonl', 'report.md', 'report.html'):
    assert (folder / name).stat().st_size > 0


def test_rows_are_complete(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  rows = json.loads((finished[1] / 'results.json').read_text())['rows']
  kept = json.loads((finished[1] / 'config.json').read_text())
  engines = kept['config']['measure']['engines']
  dense = {
    (row['network'], row['seed']): row
    for row in rows
    if row['role'] == 'reference'
  }
  assert dense
  for row in rows:
    assert row['compression_rate'] > 0
    if 'speedup_rate' in row:
      assert row['speedup_rate'] > 0
    else:  # the same program with other constants: no engine runs it faster
      base = dense[row['reference'], row['seed']]
      net, other = (
        artefact.load(finished[1] / x['artefact']) for x in (row, base)
      )
      assert fastest.is_same_program(net, other, engines)
    engine, _, how = row['latency_ms']['engine'].partition(' ')
    assert engine in engines and how in ('', 'int8', 'with popcounts')
    assert row['latency_ms']['threads'] == 1
    assert row['latency_ms']['batch_1']['p50'] > 0


def test_an_artefact_runs_in_a_process_that_saw_no_config(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  path = next((finished[1] / 'artefacts').glob('*.tsk'))
  code = (
    'import sys, numpy as np\n'
    'from tsukiji.deploy.artefact import load\n'
    'print(load(sys.argv[1])(np.zeros((2, 8, 8, 1), np.uint8)).shape)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == '(2, 10)'


@QUICKSTART
def test_a_finished_run_says_so_and_does_nothing(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  args, folder, _ = finished
  before = (folder / 'results.json').stat().st_mtime_ns
  again = run(*args)
  assert again.returncode == 0
  assert 'is finished' in again.stdout
  assert (folder / 'results.json').stat().st_mtime_ns == before


def test_artefacts_evaluate_to_their_rows(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  args, folder, _ = finished
  again = once(folder, *args, '--config.task=evaluate')
  assert again.returncode == 0, again.stderr
  assert 'as in results.json' in again.stdout
  assert 'NOT as' not in again.stdout


@QUICKSTART
def test_artefacts_are_exported(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  args, folder, _ = finished
  formats = ('onnx', 'stablehlo', 'c', 'h')
  asked = f'--config.export.formats={formats[:-1]}'
  again = once(folder, *args, '--config.task=export', asked)
  assert again.returncode == 0, again.stderr
  rows = json.loads((folder / 'results.json').read_text())['rows']
  assert 'On a device, as C' in (folder / 'report.html').read_text()
  for row in rows:
    assert 0 < row['device']['flash'] <= row['device']['read']
    for format in formats:
      path = (folder / row['artefact']).with_suffix(f'.{format}')
      assert path.stat().st_size > 0
      assert path.name in again.stdout


@pytest.mark.slow
def test_a_budget_of_a_device_ends_in_a_c_file(tmp_path: pathlib.Path) -> None:
  limits = ('bytes=None', 'flash=3000', 'ram=4000')
  done = once(
    *(tmp_path, '--config=configs/budget.py:tiny', f'--workdir={tmp_path}'),
    *('--config.workers=1', *(f'--config.budget.{x}' for x in limits)),
  )
  assert done.returncode == 0, done.stderr
  said = ' '.join(done.stdout.split())
  assert 'within 3,000 bytes of flash, 4,000 bytes of RAM: student_1' in said
  rows = json.loads((tmp_path / 'results.json').read_text())['rows']
  own = [x for x in rows if x['network'] == 'student_1' and 'method' in x]
  assert own and all(x['device']['flash'] <= 3000 for x in own)
  assert [*(tmp_path / 'artefacts').glob('student_1-*.c')]
  assert "'c')" in (tmp_path / 'best.py').read_text()


@QUICKSTART
def test_a_workdir_belongs_to_one_config(
  finished: tuple[list[str], pathlib.Path, str],
) -> None:
  other = run(*finished[0], '--config.train.lr=0.1')
  assert other.returncode == 2
  assert 'differs in train' in other.stderr


def test_a_mistake_is_one_line_and_exit_2(tmp_path: pathlib.Path) -> None:
  folder = tmp_path / 'run[red]'
  done = run(
    '--config=configs/quickstart.py:tiny',
    f'--workdir={folder}',
    '--config.train.lr=-1',
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr == (
    'Error: config.train.lr: expected more than 0, got -1.0.\n'
  )
  assert not folder.exists()


def test_a_loss_that_turns_nan_exits_3_and_names_the_step(
  tmp_path: pathlib.Path,
) -> None:
  done = run(
    '--config=configs/quickstart.py:tiny',
    f'--workdir={tmp_path}',
    '--config.train.lr=1e30',
    '--config.workers=1',
  )
  assert done.returncode == 3, done.stderr
  assert 'at step' in done.stderr
