"""Wall-clock time of packed networks, measured so that ratios can be trusted.

Variants run interleaved in one warm process, because machines drift between
fast and slow states: the ratio of neighbours in time survives that, the ratio
of two separate runs does not. One thread means a process that was pinned to
one core before JAX started; `run_pinned` starts one, which reads a job such as
`{"artefacts": {"a": "a.tsk"}, "core": 0}` on stdin.
"""

import inspect
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tsukiji.measure import energy
from tsukiji.spec import Shape

Run: TypeAlias = Callable[[], Any]
Samples: TypeAlias = dict[str, np.ndarray]  # milliseconds per call, by round
SAMPLE_NS = 200_000  # a sample lasts at least this long: 1000 ticks of 200 ns
FEWEST = 5  # rounds that are done whatever the budget
WARMUP = 10  # calls before the first sample


def sample(
  runs: Mapping[str, Run],
  *,
  repeats: int = 100,
  warmup: int = WARMUP,
  seconds: float | None = None,
  clock: Callable[[], int] = time.perf_counter_ns,
) -> Samples:
  """Time variants in turn, round by round.

  Every round times each variant once; every other round goes backwards, so
  that no variant always follows the same one. A sample repeats short calls
  until it lasts about 200 us. Each call's result is waited for.

  Args:
    runs: What to time, by name.
    repeats: Rounds.
    warmup: Calls of each variant before the first round.
    seconds: Stop early, after 5 rounds at least, once this much is spent.
    clock: Nanoseconds now; `time.process_time_ns` counts processor time.

  Returns:
    Milliseconds per call, `[rounds]` a variant; entry i of all variants is
    from the same round.

  Raises:
    ValueError: If there is nothing to time or `repeats` is below 1.
  """
  if not runs or repeats < 1:
    raise ValueError(
      f'latency: expected variants and at least 1 repeat, got {list(runs)} '
      f'and {repeats!r}. Name what to time.'
    )
  loops = {name: _loops(run, warmup, clock) for name, run in runs.items()}
  times: dict[str, list[float]] = {name: [] for name in runs}
  start = clock()
  for turn in range(repeats):
    for name in list(runs)[:: -1 if turn % 2 else 1]:
      times[name].append(_time(runs[name], loops[name], clock) / 1e6)
    spent = (clock() - start) / 1e9
    if seconds is not None and spent >= seconds and turn + 1 >= FEWEST:
      break
  return {name: np.array(t) for name, t in times.items()}


def compare(
  runs: Mapping[str, Run], **options: Any
) -> dict[str, dict[str, float]]:
  """Return the quartiles of variants that are timed in turn.

  Args:
    runs: What to time, by name.
    **options: Of `sample`.

  Returns:
    What `quartiles` gives, by name.
  """
  return {k: quartiles(x) for k, x in sample(runs, **options).items()}


def quartiles(times: np.ndarray) -> dict[str, float]:
  """Return `p25`, `p50`, `p75` of samples, in their unit, and their number.

  >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
  {'p25': 2.0, 'p50': 3.0, 'p75': 4.0, 'n': 5}
  """
  low, middle, high = np.percentile(times, (25, 50, 75))
  return {
    'p25': float(low),
    'p50': float(middle),
    'p75': float(high),
    'n': len(times),
  }


def ratios(samples: Samples, reference: str) -> dict[str, float]:
  """Return how many times faster than a reference each variant is.

  The median over rounds of reference / variant: both times of a pair are
  neighbours, so what slows the machine down cancels.

  Args:
    samples: What `sample` gave.
    reference: Name of the reference.

  Returns:
    Speed-up by name; exactly 1 for the reference.

  Raises:
    ValueError: If there is no such variant.

  >>> times = {'a': np.array([2.0, 4.0, 8.0]), 'b': np.array([1.0, 2.0, 2.0])}
  >>> ratios(times, 'a')
  {'a': 1.0, 'b': 2.0}
  """
  _check_reference(reference, samples)
  base = samples[reference]
  return {name: float(np.median(base / t)) for name, t in samples.items()}


def _check_reference(reference: str, names: Iterable[str]) -> None:
  if reference not in names:
    raise ValueError(
      f'latency: expected a reference of {", ".join(names)}, got '
      f'{reference!r}. Time the reference together with the others.'
    )


def _loops(run: Run, warmup: int, clock: Callable[[], int]) -> int:
  """Warm up; return the calls that fill one sample."""
  for _ in range(warmup):
    jax.block_until_ready(run())
  # The faster of two, so that one hiccup does not make samples too short.
  once = min(_time(run, 1, clock) for _ in range(2))
  return max(1, math.ceil(SAMPLE_NS / max(once, 1)))


def _time(run: Run, loops: int, clock: Callable[[], int]) -> float:
  """Return nanoseconds per call."""
  start = clock()
  for _ in range(loops):
    jax.block_until_ready(run())
  return (clock() - start) / loops


def compile_ahead(
  fn: Callable[[jax.Array], Any], shape: Shape, dtype: Any = jnp.float32
) -> jax.stages.Compiled:
  """Compile a function of one array for one shape.

  Arrays that `fn` closes over become constants of the program, which XLA runs
  1.0 to 1.1 times as fast as arguments.

  Args:
    fn: The function.
    shape: Of its argument, batch included.
    dtype: Of its argument.

  Returns:
    The executable; call it with such an array.
  """
  return jax.jit(fn).lower(jax.ShapeDtypeStruct(shape, dtype)).compile()


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


def threads() -> int:
  """Return how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def measure(
  artefacts: Mapping[str, str | Path],
  *,
  reference: str | None = None,
  batches: Sequence[int] = (1, 64),
  repeats: int = 100,
  seconds: float | None = None,
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

  Returns:
    `latency_ms`: by name, as in a results row: `engine`, `threads` and the
    quartiles as `batch_N`. `speedups`: by name, median of paired ratios at
    batch 1; empty without a reference or without batch 1. `energy_uj`: by
    name, at batch 1; empty where the machine has no readable counters.

  Raises:
    ValueError: If an artefact cannot be read or the reference is not there.
  """
  if reference is not None:
    _check_reference(reference, artefacts)
  nets = {name: _load(path) for name, path in artefacts.items()}
  rows: dict[str, dict[str, Any]] = {
    name: {'engine': _engine(), 'threads': threads()} for name in nets
  }
  speedups: dict[str, float] = {}
  for batch in batches:
    runs = {name: _run(net, batch) for name, net in nets.items()}
    samples = sample(runs, repeats=repeats, seconds=seconds)
    for name, times in samples.items():
      rows[name][f'batch_{batch}'] = quartiles(times)
    if batch == 1 and reference is not None:
      speedups = ratios(samples, reference)
  return {
    'latency_ms': rows,
    'speedups': speedups,
    'energy_uj': _energy(nets),
  }


def _energy(nets: Mapping[str, '_Loaded']) -> dict[str, float]:
  """Measure one inference of each network, where counters are readable."""
  reader = energy.rapl()
  if reader is None:
    return {}
  spent = {
    name: energy.measure(_run(net, 1), reader=reader)
    for name, net in nets.items()
  }
  return {name: joules for name, joules in spent.items() if joules}


class _Loaded(NamedTuple):
  input_shape: Shape
  forward: Callable[[jax.Array], Any]


def _load(path: str | Path) -> _Loaded:
  # Late, so that a process can be pinned before anything of JAX starts.
  from tsukiji.deploy import artefact

  packed = artefact.load(Path(path))
  forward = artefact.forward(packed.spec, packed.variables)
  return _Loaded(packed.spec.input_shape, forward)


def _run(net: _Loaded, batch: int) -> Run:
  return runner(net.input_shape, net.forward, batch)


def runner(
  input_shape: Shape, forward: Callable[[jax.Array], Any], batch: int
) -> Run:
  """Return a compiled call of a network on random images."""
  shape = (batch, *input_shape)
  images = np.random.default_rng(0).uniform(0, 255, shape)
  device = jax.device_put(images.astype(np.float32))
  compiled = compile_ahead(forward, shape)
  return lambda: compiled(device)


def _engine() -> str:
  backend = jax.default_backend()
  return 'jax' if backend == 'cpu' else f'jax:{backend}'


def run_pinned(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Run `measure` in a fresh process that is pinned before JAX starts.

  Args:
    job: The arguments of `measure`, and `core`: the core to pin to, or None.

  Returns:
    What `measure` returns.

  Raises:
    ValueError: If the process refuses the job, with its message.
    RuntimeError: If it fails otherwise.
  """
  root = Path(__file__).resolve().parents[2]
  inherited = os.environ.get('PYTHONPATH')
  found = os.pathsep.join([str(root), *filter(None, [inherited])])
  done = subprocess.run(
    [sys.executable, '-m', 'tsukiji.measure.latency'],
    input=json.dumps(dict(job), default=str),
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': found},
    check=False,
  )
  if done.returncode == 2:
    raise ValueError(done.stderr.strip().rpartition('\n')[2])
  if done.returncode:
    raise RuntimeError(
      f'latency: exit {done.returncode}. {done.stderr[-2000:]}'
    )
  return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
  """Read a job as JSON on stdin, print what `measure` returns as JSON."""
  try:
    job = _job(sys.stdin.read())
    pin(job.pop('core', None))
    print(json.dumps(measure(**job)))
  except (ValueError, OSError) as e:
    print(f'{e}', file=sys.stderr)
    return 2
  return 0


def _job(text: str) -> dict[str, Any]:
  job = json.loads(text)
  known = {'core', *inspect.signature(measure).parameters}
  if not isinstance(job, dict) or not {'artefacts'} <= set(job) <= known:
    raise ValueError(
      f'latency: expected a job with artefacts and any of '
      f'{", ".join(sorted(known))}, got {text[:80]!r}.'
    )
  return job


if __name__ == '__main__':
  sys.exit(main())
