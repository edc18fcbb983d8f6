"""Timing of functions in turn, so that ratios of times are reliable.

Variants run alternately in one warm process, because machines drift between
fast and slow states: ratios of times taken next to each other cancel the drift,
ratios of separate runs do not.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tsukiji.models.spec import Shape

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
  until it lasts about 200 us, after one call that is not timed: the variants
  before it have taken the caches, and samples of two or three calls would
  count the misses of the first. Each call's result is waited for.

  Args:
    runs: Functions to time, by name.
    repeats: Rounds.
    warmup: Calls of each variant before the first round.
    seconds: Stop early, after 5 rounds at least, once this much is spent.
    clock: Nanoseconds now; `time.process_time_ns` counts processor time.

  Returns:
    Milliseconds per call, `[rounds]` per variant; entry i of all variants is
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
    runs: Functions to time, by name.
    **options: Of `sample`.

  Returns:
    The result of `quartiles`, by name.
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

  The median over rounds of reference / variant: the times of a pair are taken
  next to each other, so a slow-down of the machine cancels.

  Args:
    samples: The result of `sample`.
    reference: Name of the reference.

  Returns:
    Speed-up by name; exactly 1 for the reference.

  Raises:
    ValueError: If there is no such variant.

  >>> times = {'a': np.array([2.0, 4.0, 8.0]), 'b': np.array([1.0, 2.0, 2.0])}
  >>> ratios(times, 'a')
  {'a': 1.0, 'b': 2.0}
  """
  check_reference(reference, samples)
  base = samples[reference]
  return {name: float(np.median(base / t)) for name, t in samples.items()}


def check_reference(reference: str, names: Iterable[str]) -> None:
  """Raise a ValueError unless the reference is one of the variants."""
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
  """Return nanoseconds per call, after one call that is not timed."""
  jax.block_until_ready(run())
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


def images(input_shape: Shape, batch: int) -> np.ndarray:
  """Return random float32 images in [0, 255]; values do not affect the time."""
  drawn = np.random.default_rng(0).uniform(0, 255, (batch, *input_shape))
  return drawn.astype(np.float32)


def runner(
  input_shape: Shape, forward: Callable[[jax.Array], Any], batch: int
) -> Run:
  """Return a compiled call of a network on random images."""
  device = jax.device_put(images(input_shape, batch))
  compiled = compile_ahead(forward, device.shape)
  return lambda: compiled(device)
