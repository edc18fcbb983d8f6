"""Dask clusters: on this machine, at an address, or of a batch system.

A local worker that is killed is replaced within seconds, and its task starts
again: it continues from its checkpoint. Tasks are submitted one a worker; the
rest waits in the driver.
"""

import contextlib
import functools
import inspect
import itertools
import logging
import pathlib
import queue
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import dask
import jax
from distributed import Client, Future, Scheduler, SpecCluster
from distributed.scheduler import KilledWorker
from ml_collections import ConfigDict

from tsukiji import interrupt
from tsukiji.data.datasets import Data
from tsukiji.errors import expect, expect_name
from tsukiji.experiments import executor, worker
from tsukiji.experiments.executor import Ended, Executor, Halted, Task, Tell
from tsukiji.measure import latency

T = TypeVar('T', bound=Any)
PATIENCE = 60.0  # seconds to wait for a scheduler and its first worker
LOOK = 1.0  # seconds between two counts of the workers
# glibc returns large buffers to the system after every step, to fault them in
# again page by page; these two (mallopt(3)) make workers keep them.
KEEP_MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}
SETTINGS = {
  'distributed.nanny.pre-spawn-environ': KEEP_MEMORY,
  'distributed.scheduler.allowed-failures': worker.DEATHS - 1,
  'distributed.scheduler.worker-saturation': 1.0,
  'distributed.worker.profile.enabled': False,
}


class Queue(NamedTuple):
  """A batch system: its class in dask-jobqueue, and what submits a job."""

  cluster: str
  program: str


QUEUES = {
  'slurm': Queue('SLURMCluster', 'sbatch'),
  'sge': Queue('SGECluster', 'qsub'),
  'pbs': Queue('PBSCluster', 'qsub'),
}


def _silence() -> None:
  """Keep what Dask logs about lost connections from the terminal."""
  for name in ('distributed', 'tornado', 'asyncio'):
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def opened(
  config: ConfigDict, count: int, folder: pathlib.Path, data: Data
) -> Iterator[Executor]:
  """Start or join a cluster, and leave it in the end.

  Args:
    config: `config.cluster`.
    count: Number of workers, or of jobs of a batch system; at an address there
      are as many as there are.
    folder: The workdir, which workers must see.
    data: Given to every task.

  Yields:
    The executor.

  Raises:
    ValueError: If there is no scheduler, no worker, or a worker that does not
      see the workdir.
  """
  name = f'tsukiji-{uuid.uuid4().hex[:8]}'
  local = config.kind == 'local'
  cores = tuple(latency.cores()) if local else ()
  _silence()
  with contextlib.ExitStack() as stack:
    stack.enter_context(dask.config.set(SETTINGS))
    client = stack.enter_context(_joined(config, count))
    place(client, worker.Holder(name, data, cores))
    if not local:
      _expect_workdir(client, folder)
      stack.callback(_leave, client, client.unregister_worker_plugin, name)
    running: dict[str, Future] = {}
    stack.callback(lambda: _leave(client, client.cancel, [*running.values()]))
    slots = (lambda: count) if local else _counted(client)
    yield executor_of(client, name, slots, running)


@contextlib.contextmanager
def _joined(config: ConfigDict, count: int) -> Iterator[Client]:
  """Yield a client of the cluster."""
  if config.kind == 'address':
    with contextlib.ExitStack() as stack:
      try:
        client = Client(config.address, timeout=PATIENCE, set_as_default=False)
        stack.enter_context(client)
        client.wait_for_workers(1, PATIENCE)
      except (OSError, TimeoutError, ValueError) as e:
        what = 'a Dask scheduler that answers and has a worker'
        fix = 'Start them with `dask scheduler` and `dask worker ADDRESS`.'
        got = f'{config.address}: {type(e).__name__}'
        expect('config.cluster.address', False, what, got, fix)
      yield client
    return
  made = _local(config, count) if config.kind == 'local' else queued(config)
  with _closed(made), _closed(Client(made, set_as_default=False)) as client:
    if config.kind in QUEUES:
      _submit(config.kind, made, max(1, count))
    yield client


@contextlib.contextmanager
def _closed(opened: T) -> Iterator[T]:
  """Yield a cluster or client and close it.

  All work is stored by then: that a busy machine takes long to close is no
  error, and its workers end with this process.
  """
  try:
    yield opened
  finally:
    with contextlib.suppress(TimeoutError):
      opened.close()


def _submit(kind: str, made: Any, jobs: int) -> None:
  """Submit jobs of one worker each."""
  program = QUEUES[kind].program
  there = shutil.which(program) is not None
  fix = 'Run it where jobs are submitted.'
  expect('config.cluster.kind', there, f'the command {program}', 'none', fix)
  made.scale(jobs=jobs)


def _local(config: ConfigDict, count: int) -> SpecCluster:
  """Start a scheduler in this process, and workers of one thread each."""
  common = {'host': '127.0.0.1', 'nthreads': 1, 'memory_limit': 0}
  quiet = {'dashboard': False, 'silence_logs': logging.CRITICAL}
  where = config.dashboard or None
  return SpecCluster(
    scheduler={
      'cls': Scheduler,
      'options': {
        'host': '127.0.0.1',
        'port': 0,
        'dashboard': bool(where),
        'dashboard_address': where or '127.0.0.1:0',
      },
    },
    workers={
      i: {'cls': worker.Keeper, 'options': {**common, **quiet, 'env': env}}
      for i, env in enumerate(executor.environments(count))
    },
    silence_logs=logging.CRITICAL,
  )


def queued(config: ConfigDict) -> Any:
  """Return a cluster whose workers are jobs of a batch system.

  Args:
    config: `config.cluster`; its options are those of dask-jobqueue.

  Returns:
    The cluster of dask-jobqueue, without jobs; `job_script()` shows what it
    will submit.

  Raises:
    ValueError: If dask-jobqueue is not installed or has no such option.
  """
  try:
    import dask_jobqueue
  except ImportError:
    fix = 'Run pip install dask-jobqueue.'
    what = 'the package dask-jobqueue'
    expect('config.cluster.kind', False, what, 'no such package', fix)
  kind = getattr(dask_jobqueue, QUEUES[config.kind].cluster)
  takes = [inspect.signature(x.__init__) for x in kind.job_cls.mro()[:-1]]
  takes.append(inspect.signature(dask_jobqueue.JobQueueCluster))
  known = {name for one in takes for name in one.parameters}
  for name in config.options:
    expect_name('config.cluster.options', name, known - {'self', 'kwargs'})
  options = {'cores': 1, 'processes': 1, 'memory': '4GB', **config.options}
  return kind(**options)


def place(client: Client, holder: worker.Holder) -> None:
  """Send the data to all workers, also to those that replace killed ones.

  Raises:
    ValueError: If workers lack the packages.
    OSError: If workers die again and again.
  """
  for death in range(worker.DEATHS):
    try:
      client.register_plugin(holder)
      return
    except ImportError as e:
      fix = 'Install the same packages everywhere.'
      expect('config.cluster', False, 'workers with tsukiji', f'{e}', fix)
    except OSError:  # of a worker that was killed meanwhile
      if death == worker.DEATHS - 1:
        raise
      time.sleep(LOOK)


def _expect_workdir(client: Client, folder: pathlib.Path) -> None:
  """Check that workers see the workdir and have the same JAX."""
  path = str((folder / 'config.json').absolute())
  for where, (there, version) in client.run(worker.sees, path).items():
    fix = 'Use a --workdir on a file system that all workers share.'
    expect(f'worker {where}', there, f'a workdir {folder}', 'none', fix)
    fix = 'Install the same packages everywhere.'
    same = version == jax.__version__
    expect(f'worker {where}', same, f'jax {jax.__version__}', version, fix)


def _leave(client: Client, function: Callable[..., Any], *args: Any) -> None:
  """Call a function of a cluster, unless it is gone."""
  if client.status == 'running':
    with contextlib.suppress(Exception):
      function(*args)


def _counted(client: Client) -> Callable[[], int]:
  """Return what counts the workers, now and then."""
  last, count = -LOOK, 0

  def slots() -> int:
    nonlocal last, count
    if time.monotonic() >= last + LOOK:
      last, count = time.monotonic(), len(client.nthreads())
    return count

  return slots


def executor_of(
  client: Client,
  name: str,
  slots: Callable[[], int],
  running: dict[str, Future],
) -> Executor:
  """Return the executor of a client whose workers hold the data by a name."""
  inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
  listening: dict[str, Tell] = {}
  halted: dict[str, Halted] = {}
  numbers = itertools.count()
  client.subscribe_topic(name, lambda event: inbox.put(event[1]))

  def submit(tell: Tell, task: Task, *args: Any) -> str:
    key = f'{task.__name__}-{name}-{next(numbers)}'
    made = functools.partial(worker.call, name, task, args)
    running[key] = client.submit(made, key=key)
    listening[key] = tell
    running[key].add_done_callback(inbox.put)
    return key

  def wait(seconds: float) -> list[Ended]:
    interrupt.stop_if_requested()
    ended = []
    for item in _received(inbox, seconds):
      if not isinstance(item, list | tuple):
        ended.append(item)
      elif item[0] in listening and item[0] not in halted:
        try:
          listening[item[0]](tuple(item[1:]))
        except Halted as e:
          halted[item[0]] = e
          client.cancel([running[item[0]]])
    found = _ended(client, ended, halted)
    for future in ended:
      del listening[future.key], running[future.key]
      halted.pop(future.key, None)
      future.release()  # else it is computed again where its worker dies
    return found

  return Executor(slots, submit, wait)


def _received(inbox: 'queue.SimpleQueue[Any]', seconds: float) -> list[Any]:
  """Wait for something, and return all there is."""
  found = []
  with contextlib.suppress(queue.Empty):
    found.append(inbox.get(timeout=seconds))
    while True:
      found.append(inbox.get_nowait())
  return found


def _ended(
  client: Client, ended: list[Future], halted: dict[str, Halted]
) -> list[Ended]:
  """Return what has come of futures.

  Raises:
    ValueError: If the scheduler is lost.
  """
  found = [Ended(x.key, None, halted[x.key]) for x in ended if x.key in halted]
  ended = [future for future in ended if future.key not in halted]
  lost = any(future.status in ('cancelled', 'lost') for future in ended)
  fix = 'Run the same command again: it continues from the last epochs.'
  expect('config.cluster', not lost, 'a scheduler that answers', 'none', fix)
  fine = [future for future in ended if future.status == 'finished']
  keys = [future.key for future in fine]
  values = dict(zip(keys, client.gather(fine), strict=True))
  found += [
    Ended(future.key, values[future.key], None)
    if future.key in values
    else Ended(future.key, None, _said(future.exception()))
    for future in ended
  ]
  return found


def _said(error: BaseException) -> BaseException:
  """Return an error, that of workers which were killed in plain words."""
  if not isinstance(error, KilledWorker):
    return error
  return executor.Killed(f'a worker process was killed {worker.DEATHS} times')
