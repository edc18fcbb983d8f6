"""Wall-clock latencies of packed networks, measured alternately.

Networks are timed in turn (`sampling`), each in its fastest engine (`fastest`).
One thread means a process that was pinned to one core before JAX started its
threads; `run_pinned` starts one, which reads a job such as
`{"artefacts": {"a": "a.tsk"}, "core": 0}` on stdin.
"""

import contextlib
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsukiji import interrupt
from tsukiji.deploy import artefact
from tsukiji.deploy.tsk import node_forms
from tsukiji.measure import clock, energy, fastest, sampling

PATH = 'PYTHONPATH'


def pin(core: int | None) -> None:
  """Keep this process on one core; call it before JAX starts its threads.

  Args:
    core: Number of the core; None leaves the process as it is. Systems
      without affinity (macOS) ignore it.

  Raises:
    ValueError: If this process may not use that core.
  """
  if core is None or not hasattr(os, 'sched_setaffinity'):
    return
  allowed = os.sched_getaffinity(0)
  if core not in allowed:
    raise ValueError(
      f'latency.pin: expected a core of {sorted(allowed)}, got {core!r}. '
      'Cores of a container may be fewer than those of the machine.'
    )
  os.sched_setaffinity(0, {core})


def cores() -> list[int]:
  """Return the cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def measure(
  artefacts: Mapping[str, str | Path],
  *,
  reference: str | None = None,
  batches: Sequence[int] = (1, 64),
  repeats: int = 100,
  seconds: float | None = None,
  engines: Sequence[str] = ('jax',),
) -> dict[str, dict[str, Any]]:
  """Time packed networks against each other.

  Inputs are random images in [0, 255] that are on the device already; what
  they hold does not change the work.

  Args:
    artefacts: Paths of packed networks, by name.
    reference: Name of the one that speed-ups are against.
    batches: Batch sizes.
    repeats: Samples of each network and batch size.
    seconds: Budget of each batch size.
    engines: Engines to choose from; each network, the reference included, runs
      in the fastest one installed.

  Returns:
    `latency_ms`: by name, as in a results row: `engine`, that of the first
    batch size, `threads` and the quartiles as `batch_N`; `engines`, by batch,
    where there is a choice; of binary networks `popcounts`: by batch, the
    layers that count bits in XLA, since their float32 kernels are slower here.
    `speedups`: by name, median of paired ratios at batch 1; empty without a
    reference or without batch 1, and without the networks that run as the
    program of the reference with other constants, whose rate is 1 by
    construction. `batch_speedups`: the same of every batch size, by name and
    batch. `energy_uj`: by name, at batch 1; empty without
    batch 1, or where the machine has no readable counters.

  Raises:
    ValueError: If an artefact cannot be read or the reference is not there.
  """
  if reference is not None:
    sampling.check_reference(reference, artefacts)
  nets = {name: artefact.load(path) for name, path in artefacts.items()}
  rows: dict[str, dict[str, Any]] = {name: {} for name in nets}
  compared = _compared(nets, reference, engines)
  speedups: dict[str, dict[str, float]] = {name: {} for name in compared}
  ones: dict[str, sampling.Run] = {}
  for batch in batches:
    key = f'batch_{batch}'
    found = {
      name: fastest.fastest(net, batch, engines, len(cores()))
      for name, net in nets.items()
    }
    runs = {name: candidate.run for name, candidate in found.items()}
    samples = sampling.sample(runs, repeats=repeats, seconds=seconds)
    for name, candidate in found.items():
      _note(
        rows[name], key, candidate.engine, candidate.counted, len(engines) > 1
      )
      rows[name][key] = sampling.quartiles(samples[name])
    if batch == 1:
      ones = runs
    if reference is not None:
      ratios = sampling.ratios(samples, reference)
      for name in compared:
        speedups[name][key] = ratios[name]
  return {
    'latency_ms': rows,
    'speedups': {
      k: x['batch_1'] for k, x in speedups.items() if 'batch_1' in x
    },
    'batch_speedups': {k: x for k, x in speedups.items() if x},
    'energy_uj': _energy(ones),
  }


def _compared(
  nets: Mapping[str, artefact.Artefact],
  reference: str | None,
  engines: Sequence[str],
) -> list[str]:
  """Return the networks whose time can differ from that of the reference."""
  if reference is None:
    return []
  dense = nets[reference]
  return [
    name
    for name, net in nets.items()
    if name == reference or not fastest.is_same_program(net, dense, engines)
  ]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
  """Return the environment of a process that measures.

  Args:
    inherited: That of this process. Its settings of the allocator are left
      out: those that keep memory from one training step to the next would
      flatter some networks, and only where something was trained before.

  Returns:
    The variables, with this package on the path.
  """
  root = Path(__file__).resolve().parents[2]
  path = os.pathsep.join([str(root), *filter(None, [inherited.get(PATH)])])
  kept = {k: v for k, v in inherited.items() if not k.startswith('MALLOC_')}
  return {**kept, PATH: path}


def _note(
  row: dict[str, Any],
  key: str,
  engine: str,
  counted: Sequence[str] | None,
  choice: bool,
) -> None:
  """Write into a row what ran at a batch size."""
  if engine == f'{row.get("engine", "")}{fastest.COUNTING}':
    row['engine'] = engine  # bits are counted at some batch size
  row.setdefault('engine', engine)
  row.setdefault('threads', len(cores()))
  if choice:
    row.setdefault('engines', {})[key] = engine
  if counted is not None:
    row.setdefault('popcounts', {})[key] = list(counted)


def _energy(runs: Mapping[str, sampling.Run]) -> dict[str, float]:
  """Measure one inference of each network, where counters are readable."""
  reader = energy.rapl()
  if reader is None:
    return {}
  spent = {k: energy.measure(run, reader=reader) for k, run in runs.items()}
  return {name: joules for name, joules in spent.items() if joules}


def run_pinned(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Run `measure` in a fresh process that is pinned before JAX starts.

  It imports the modules whose classes of nodes this process knows.

  Args:
    job: The arguments of `measure`, and `core`: the core to pin to, or None.

  Returns:
    The result of `measure`.

  Raises:
    ValueError: If the process refuses the job, with its message.
    RuntimeError: If it fails otherwise.
  """
  code, out, err = _run(
    [sys.executable, '-m', 'tsukiji.measure.latency'],
    json.dumps({**job, 'modules': node_forms.modules()}, default=str),
    environment(os.environ),
  )
  if code == 2:
    raise ValueError(err.strip().rpartition('\n')[2])
  if code:
    raise RuntimeError(f'latency: exit {code}. {err[-2000:]}')
  return json.loads(out.splitlines()[-1])


def _run(
  command: Sequence[str], text: str, env: Mapping[str, str]
) -> tuple[int, str, str]:
  """Run a process that ends as soon as a signal stops this one."""
  with subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=env,
  ) as process:
    given: str | None = text
    try:
      while process.returncode is None:
        try:
          out, err = process.communicate(given, timeout=0.2)
        except subprocess.TimeoutExpired:
          given = None  # all of it is sent
          interrupt.stop_if_requested()
    except BaseException:
      process.kill()
      raise
  return process.returncode, out, err


def milliseconds(path: Path, reference: Path, **job: Any) -> float:
  """Return the latency of a packed network, comparable over time.

  Processes that run one after the other meet a machine in different states,
  next to others that train or not. The network is timed alternately with a
  reference; its latency is what the reference took at first, stored next to its
  file, over the ratio.

  Args:
    path: A packed network.
    reference: Another one, the same for all networks to be compared.
    **job: Of `run_pinned`.

  Returns:
    Milliseconds of one example.
  """
  names = {'network': str(path), 'reference': str(reference)}
  found = run_pinned(
    {**job, 'artefacts': names, 'reference': 'reference', 'batches': [1]}
  )
  now: float = found['latency_ms']['reference']['batch_1']['p50']
  scale = clock.stored(reference.with_suffix('.txt'), lambda: now)
  # A program of the reference with other constants has no rate.
  return scale / found['speedups'].get('network', 1.0)


def main() -> int:
  """Read a job as JSON on stdin and print the result of `measure` as JSON."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
  try:
    job = _job(sys.stdin.read())
    pin(job.pop('core', None))
    for name in job.pop('modules', ()):
      with contextlib.suppress(ImportError):  # files say what they lack
        importlib.import_module(name)
    print(json.dumps(measure(**job)))
  except (ValueError, OSError) as e:
    print(f'{e}', file=sys.stderr)
    return 2
  return 0


def _job(text: str) -> dict[str, Any]:
  job = json.loads(text)
  known = {'core', 'modules', *inspect.signature(measure).parameters}
  if not isinstance(job, dict) or not {'artefacts'} <= set(job) <= known:
    raise ValueError(
      f'latency: expected a job with artefacts and any of '
      f'{", ".join(sorted(known))}, got {text[:80]!r}.'
    )
  return job


if __name__ == '__main__':
  sys.exit(main())
