"""Clusters: workers that are killed, jobs of batch systems, addresses."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker
from ml_collections import ConfigDict

from tests import commands
from tests.test_imports import ROOT
from tests.tsukiji.experiments.test_executor import DATA, half
from tsukiji import interrupt
from tsukiji.config import settings
from tsukiji.data.datasets import Data
from tsukiji.experiments import cluster, executor, placement, worker
from tsukiji.experiments.executor import Ended, Executor, Tell

SBATCH = """#!/bin/sh
# Runs the job at once, in a process group of its own.
cp "$1" {folder}/job.sh
HOME={folder} setsid sh {folder}/job.sh > {folder}/log 2>&1 &
echo $! > {folder}/pid
echo "Submitted batch job 7"
"""


class Fragile(worker.Holder):
  """The data of an experiment; the first worker that gets it dies."""

  def __init__(self, path: pathlib.Path) -> None:
    super().__init__('fragile', DATA)
    self.path = path

  def setup(self, worker: Worker) -> None:
    """Die, or take the data."""
    super().setup(worker)
    if not self.path.exists():
      self.path.touch()
      os._exit(9)


def kills_itself(tell: Tell, data: Data, path: str) -> int:
  """End the worker in the first two attempts."""
  tries = pathlib.Path(path)
  with tries.open('a') as file:
    file.write('x')
  if len(tries.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
  return os.getpid()


def dies(tell: Tell, data: Data) -> None:
  """End the worker in every attempt."""
  os._exit(9)


def trains(tell: Tell, data: Data, path: str) -> str:
  """Work until a stop request, and write down that it came."""
  tell(('trains', 1, 0.0))
  try:
    while True:
      interrupt.stop_if_requested()
      time.sleep(0.02)
  except interrupt.Stopped:
    pathlib.Path(path).write_text('a checkpoint')
    raise


def ends(chosen: Executor, count: int) -> list[Ended]:
  """Wait until so many tasks have ended."""
  found: list[Ended] = []
  deadline = time.monotonic() + 60
  while len(found) < count and time.monotonic() < deadline:
    found += chosen.wait(0.2)
  return found


@contextlib.contextmanager
def workers(folder: pathlib.Path, **cluster: Any) -> Iterator[Executor]:
  """Yield the executor of two workers."""
  config = settings.default()
  config.cluster.update(cluster)
  with placement.opened(config, folder, DATA) as executors:
    yield executors(8, 2)


def children() -> set[int]:
  """Return the processes that this one has started."""
  task = pathlib.Path(f'/proc/{os.getpid()}/task')
  return {
    int(pid)
    for path in task.glob('*/children')
    for pid in path.read_text().split()
  }


@pytest.mark.slow
def test_killed_workers_are_replaced_and_their_tasks_run_again(
  tmp_path: pathlib.Path,
) -> None:
  before, told = children(), []
  with workers(tmp_path) as chosen:
    assert chosen.slots() == 2
    path = f'{tmp_path}/tries'
    killed = chosen.submit(lambda _: None, kills_itself, path)
    fine = [chosen.submit(told.append, half, x) for x in (4.0, -1.0)]
    found = {ended.future: ended for ended in ends(chosen, 3)}
    assert found[killed].value > 0
    assert pathlib.Path(path).read_text() == 'xxx'
    assert found[fine[0]].value == 2
    assert isinstance(found[fine[1]].error, ValueError)
    assert sorted({*told}) == [('half', 3, -1.0), ('half', 3, 4.0)]
    chosen.submit(lambda _: None, dies)
    (never,) = ends(chosen, 1)
    assert isinstance(never.error, executor.Killed)
    assert f'{never.error}' == 'a worker process was killed 5 times'
  assert children() - before <= resource_trackers()


@pytest.mark.slow
def test_who_listens_may_end_a_task(tmp_path: pathlib.Path) -> None:
  def tell(event: Any) -> None:
    raise executor.Halted('enough')

  with workers(tmp_path) as chosen:
    path = f'{tmp_path}/checkpoint'
    future = chosen.submit(tell, trains, path)
    (ended,) = ends(chosen, 1)
    assert (ended.future, f'{ended.error}') == (future, 'enough')
    # The worker is free again, and the task has left a checkpoint.
    for x in (4.0, 6.0, 8.0):
      chosen.submit(lambda _: None, half, x)
    assert sorted(done.value for done in ends(chosen, 3)) == [2, 3, 4]
    assert pathlib.Path(path).exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_starts_is_started_again(
  tmp_path: pathlib.Path,
) -> None:
  before, killed = children() | resource_trackers(), []

  def kill_the_first() -> None:
    while not killed:
      for pid in children() - before:
        if 'spawn_main' in command(pid):
          os.kill(pid, signal.SIGKILL)
          killed.append(pid)
          return
      time.sleep(0.01)

  killer = threading.Thread(target=kill_the_first)
  killer.start()
  with workers(tmp_path) as chosen:
    assert killed
    for x in (4.0, 6.0, 8.0):
      chosen.submit(lambda _: None, half, x)
    assert sorted(done.value for done in ends(chosen, 3)) == [2, 3, 4]
  killer.join()


@pytest.mark.slow
def test_a_worker_that_dies_while_it_gets_the_data_is_replaced(
  tmp_path: pathlib.Path,
) -> None:
  with (
    LocalCluster(
      n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as x,
    Client(x, set_as_default=False) as client,
  ):
    cluster.place(client, Fragile(tmp_path / 'died'))
    assert (tmp_path / 'died').exists()
    chosen = cluster.executor_of(client, 'fragile', lambda: 2, {})
    for number in (4.0, 6.0, 8.0):
      chosen.submit(lambda _: None, half, number)
    assert sorted(done.value for done in ends(chosen, 3)) == [2, 3, 4]


def resource_trackers() -> set[int]:
  """Return the process with which Python itself follows `multiprocessing`."""
  return {pid for pid in children() if 'resource_tracker' in command(pid)}


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['local', 'address'])
def test_what_runs_at_the_end_writes_its_checkpoint(
  kind: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
  where = {}
  if kind == 'address':
    (tmp_path / 'config.json').touch()
    where = {'kind': kind, 'address': request.getfixturevalue('address')}
  told: list[Any] = []
  with (
    pytest.raises(FloatingPointError),
    workers(tmp_path, **where) as chosen,
  ):
    for i in range(2):
      chosen.submit(told.append, trains, f'{tmp_path}/{i}')
    while len(told) < 2:
      chosen.wait(0.2)
    begun = time.monotonic()
    raise FloatingPointError
  assert time.monotonic() < begun + 5
  while not all((tmp_path / x).exists() for x in '01'):
    assert kind != 'local' and time.monotonic() < begun + 15
    time.sleep(0.2)


@pytest.mark.parametrize(
  ('kind', 'said'),
  [
    ('slurm', ['#SBATCH -p long', '#SBATCH --cpus-per-task=2', '--gpus=1']),
    ('sge', ['#$ -q long', '--gpus=1']),
    ('pbs', ['#PBS -q long', '--gpus=1']),
  ],
)
def test_jobs_of_batch_systems_have_their_options(
  kind: str, said: list[str]
) -> None:
  from tsukiji.experiments import cluster

  config = settings.default().cluster
  config.kind = kind
  config.options = ConfigDict(
    {'cores': 2, 'queue': 'long', 'job_extra_directives': ['--gpus=1']}
  )
  with cluster.queued(config) as made:
    script = made.job_script()
  assert all(text in script for text in said)
  assert 'distributed.cli.dask_worker' in script
  config.options = ConfigDict({'coers': 2})
  with pytest.raises(ValueError, match="'coers'. Nearest: 'cores'"):
    cluster.queued(config)


def test_jobs_need_what_submits_them(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv('PATH', str(tmp_path))
  with (
    pytest.raises(ValueError, match='expected the command qsub, got .none'),
    workers(tmp_path, kind='pbs'),
  ):
    pass


@pytest.mark.slow
def test_a_job_of_slurm_works(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  (tmp_path / 'config.json').touch()
  for name, text in (('sbatch', SBATCH), ('scancel', '#!/bin/sh\n')):
    path = tmp_path / name
    path.write_text(text.format(folder=tmp_path))
    path.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  options = {'interface': 'lo', 'local_directory': str(tmp_path)}
  chosen = {'kind': 'slurm', 'options': ConfigDict(options)}
  with workers(tmp_path, **chosen) as made:
    while not made.slots():
      made.wait(0.2)
    made.submit(lambda _: None, half, 6.0)
    (one,) = ends(made, 1)
    assert one.value == 3
  deadline = time.monotonic() + 15
  pid = int((tmp_path / 'pid').read_text())
  while pathlib.Path(f'/proc/{pid}').exists():
    assert time.monotonic() < deadline  # the scheduler is gone
    time.sleep(0.2)


def test_a_cluster_that_closes_slowly_is_no_error() -> None:
  """All work is stored; it was an empty line after hours of training."""
  from tsukiji.experiments import cluster

  class Slow:
    def close(self) -> None:
      raise TimeoutError

  with cluster._closed(Slow()):
    pass
  with pytest.raises(KeyError), cluster._closed(Slow()):
    raise KeyError


def test_an_address_without_a_scheduler_is_an_error(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  from tsukiji.experiments import cluster

  monkeypatch.setattr(cluster, 'PATIENCE', 0.5)
  where = {'kind': 'address', 'address': 'tcp://127.0.0.1:9'}
  with (
    pytest.raises(ValueError, match='cluster.address: expected a Dask') as said,
    workers(tmp_path, **where),
  ):
    pass
  assert len(str(said.value)) <= 300


def free_port() -> int:
  """Return a port that nobody uses."""
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    port: int = one.getsockname()[1]
  return port


@pytest.fixture
def address(tmp_path: pathlib.Path) -> Iterator[str]:
  """Start a scheduler and two workers with homes of their own."""
  where = f'tcp://127.0.0.1:{free_port()}'
  module = [sys.executable, '-m', 'distributed.cli.dask_scheduler']
  started = []

  def start(name: str, *args: str) -> None:
    home = tmp_path / name
    home.mkdir()
    env = {**os.environ, 'HOME': str(home), 'JAX_PLATFORMS': 'cpu'}
    env.pop('XDG_CACHE_HOME', None)
    with (home / 'log').open('w') as log:
      started.append(
        subprocess.Popen(args, cwd=ROOT, env=env, stdout=log, stderr=log)
      )

  start('scheduler', *module, '--host', where, '--no-dashboard')
  module[-1] = 'distributed.cli.dask_worker'
  for name in ('first', 'second'):
    own = ['--nthreads', '1', '--no-dashboard', '--name', name]
    own += ['--local-directory', str(tmp_path / name)]
    start(name, *module, where, *own)
  try:
    yield where
  finally:
    for process in started:
      process.send_signal(signal.SIGTERM)
    for process in started:
      try:
        process.wait(20)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_workers_at_an_address_find_what_local_ones_find(
  address: str, tmp_path: pathlib.Path
) -> None:
  args = ['--config=configs/quickstart.py:tiny', '--config.task=train']
  args += ['--config.seeds=(0,1)']
  there = [f'--config.cluster.address={address}']
  there += ['--config.cluster.kind=address']
  for name, more in (('here', ['--config.workers=1']), ('there', there)):
    done = commands.run(*args, *more, f'--workdir={tmp_path}/{name}')
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
  here = sorted((tmp_path / 'here' / 'artefacts').iterdir())
  assert len(here) >= 2
  for path in here:
    other = tmp_path / 'there' / 'artefacts' / path.name
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_killed_driver_leaves_nobody_working_at_an_address(
  address: str, tmp_path: pathlib.Path
) -> None:
  code = (
    'import pathlib, sys, time;'
    'from tests.tsukiji.experiments import test_cluster as t;'
    f'folder = pathlib.Path({str(tmp_path)!r});'
    '(folder / "config.json").touch();'
    f'w = t.workers(folder, kind="address", address={address!r});'
    'made = w.__enter__();'
    f'[made.submit(print, t.trains, f"{tmp_path}/{{i}}") for i in range(2)];'
    'made.wait(5); print("begun", flush=True); time.sleep(600)'
  )
  driver = subprocess.Popen(
    [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert driver.stdout is not None
  while 'begun' not in driver.stdout.readline():
    assert driver.poll() is None
  time.sleep(1)
  driver.kill()
  driver.communicate()
  deadline = time.monotonic() + 15
  while not all((tmp_path / x).exists() for x in '01'):
    assert time.monotonic() < deadline
    time.sleep(0.2)


@pytest.mark.slow
def test_a_workdir_that_workers_do_not_see_is_an_error(
  address: str, tmp_path: pathlib.Path
) -> None:
  where = {'kind': 'address', 'address': address}
  with (
    pytest.raises(ValueError, match='expected a workdir .* got .none'),
    workers(tmp_path / 'nowhere', **where),
  ):
    pass


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_command_and_the_tasks(
  address: str, tmp_path: pathlib.Path
) -> None:
  (tmp_path / 'config.json').touch()
  told: list[Any] = []
  with (
    pytest.raises(ValueError, match='expected a scheduler that answers'),
    workers(tmp_path, kind='address', address=address) as chosen,
  ):
    for i in range(2):
      chosen.submit(told.append, trains, f'{tmp_path}/{i}')
    while len(told) < 2:
      chosen.wait(0.2)
    (pid,) = (x for x in children() if 'dask_scheduler' in command(x))
    os.kill(pid, signal.SIGKILL)
    ends(chosen, 2)
  deadline = time.monotonic() + 15
  while not all((tmp_path / x).exists() for x in '01'):
    assert time.monotonic() < deadline
    time.sleep(0.2)


def command(pid: int) -> str:
  """Return the command line of a process."""
  with contextlib.suppress(OSError):
    return pathlib.Path(f'/proc/{pid}/cmdline').read_text()
  return ''
