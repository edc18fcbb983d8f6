"""What one device does: steps, trials as one program, and the laws.

`python -m benchmarks.accelerator` takes less than 8 minutes on a GPU and writes
results/accelerator.json: the milliseconds of a training step of Tsukijinet2021
at batch 128 and 1024 (28x28x1, float32, AdamW), how many trials an hour it
trains one by one and 16, 64 and 256 together, and which laws of
tests/test_laws.py hold there. `--tiny` does the same on small sizes, on any
device. A trial is two epochs of Fashion-MNIST; compiling is not counted in its
time and given beside it.
"""

import argparse
import pathlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from tsukiji import interrupt
from tsukiji.config import settings
from tsukiji.data.datasets import Split
from tsukiji.experiments import store
from tsukiji.models import net as net_lib
from tsukiji.models import zoo
from tsukiji.models.spec import Spec
from tsukiji.training import step as step_lib
from tsukiji.training import vmapped
from tsukiji.training.vmapped import Member

ROOT = pathlib.Path(__file__).parent.parent
WARM = 5  # steps that are not timed: the first of them compiles
TRIAL = 860  # steps: two epochs of 55,000 examples in batches of 128


class Sizes(NamedTuple):
  """What is measured.

  Attributes:
    spec: The network.
    batches: Examples a step.
    together: Trials in one program.
    steps: Timed ones.
    laws: Which tests; an expression as of `pytest -k`.
    minutes: In all.
  """

  spec: Spec
  batches: tuple[int, ...] = (128, 1024)
  together: tuple[int, ...] = (1, 16, 64, 256)
  steps: int = 40
  laws: str = 'decoded_shapes or traced_once or packing_keeps or are_zero'
  minutes: float = 7.5


def full() -> Sizes:
  """Return the sizes for an accelerator."""
  return Sizes(zoo.build('tsukijinet2021', (28, 28, 1), 10))


def tiny() -> Sizes:
  """Return sizes for a CPU and for tests."""
  sizes = {'conv': (4,), 'kernel': 3, 'hidden': (8,)}
  spec = zoo.build('tsukijinet2021', (8, 8, 1), 10, **sizes)
  return Sizes(spec, (8, 16), (1, 2), 2, 'every_method_of_the_table', 1.0)


def examples(sizes: Sizes, count: int) -> Split:
  """Return random images; what they show does not change the work."""
  drawn = np.random.default_rng(0)
  x = drawn.integers(0, 256, (count, *sizes.spec.input_shape), np.uint8)
  return Split(x, np.arange(count, dtype=np.int32) % 10)


def step_ms(sizes: Sizes, batch: int) -> dict[str, float]:
  """Return quartiles of the milliseconds of a step, examples on the device."""
  chosen = settings.training(batch_size=batch)
  plan = step_lib.plain(sizes.spec, chosen, 10_000)
  variables = net_lib.init_variables(sizes.spec, 0)
  state = step_lib.init_state(plan, variables, 0)
  step = step_lib.make_step(plan)
  x, y = (jax.device_put(part) for part in examples(sizes, batch))
  times = []
  for i in range(WARM + sizes.steps):
    begun = time.perf_counter()
    state = jax.block_until_ready(step(state, x, y))
    if i >= WARM:
      times.append(1e3 * (time.perf_counter() - begun))
  low, middle, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
  return {'p25': low, 'p50': middle, 'p75': high}


def trials(sizes: Sizes, count: int) -> dict[str, float]:
  """Return the speed of trials that are one program, data included."""
  batch = sizes.batches[0]
  split = examples(sizes, 8 * batch)
  members = [
    Member(settings.training(batch_size=batch, lr=1e-3 * (1 + i / count)), i)
    for i in range(count)
  ]

  begun, starts = time.perf_counter(), []

  def note() -> None:  # called before each step
    starts.append(time.perf_counter())

  steps = WARM + sizes.steps
  with interrupt.watched(note):
    jax.block_until_ready(vmapped.run_group(sizes.spec, members, split, steps))
  step = (time.perf_counter() - starts[WARM]) / sizes.steps
  return {
    'together': count,
    'step_ms': 1e3 * step,
    'trials_an_hour': 3600 * count / (TRIAL * step),
    'seconds_until_warm': starts[WARM] - begun,
  }


def laws(sizes: Sizes, seconds: float) -> dict[str, Any]:
  """Return how many laws hold on this device, in the time that is left."""
  command = [sys.executable, '-m', 'pytest', 'tests/test_laws.py', '-vv']
  command += ['-m', 'not slow', '-k', sizes.laws, '-p', 'no:cacheprovider']
  begun = time.perf_counter()
  try:
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, timeout=seconds, check=False
    )
    said, whole = done.stdout, True
  except subprocess.TimeoutExpired as e:
    said, whole = e.stdout or b'', False
  lines = said.decode().splitlines()
  failed = [x for x in lines if ' FAILED ' in x and '::' in x]
  return {
    'tests': sizes.laws,
    'passed': sum(' PASSED ' in x for x in lines),
    'failed': [x.partition(' FAILED ')[0] for x in failed],
    'all_were_run': whole,
    'seconds': time.perf_counter() - begun,
  }


def measured(sizes: Sizes, path: pathlib.Path) -> dict[str, Any]:
  """Measure everything, and write what there is after each part."""
  end = time.monotonic() + 60 * sizes.minutes
  device = jax.devices()[0]
  found: dict[str, Any] = {
    'command': 'python -m benchmarks.accelerator',
    'commit': store.commit(),
    'machine': store.machine(),
    'device': f'{device.device_kind} ({device.platform})',
    'devices': jax.device_count(),
    'jax': jax.__version__,
    'network': sizes.spec.name,
    'step_ms': {},
    'trials': [],
  }

  def note(line: object) -> None:
    print(line, flush=True)
    store.write_json(path, found)

  for batch in sizes.batches:
    found['step_ms'][str(batch)] = step_ms(sizes, batch)
    note(f'batch {batch}: {found["step_ms"][str(batch)]}')
  for count in sizes.together:
    if time.monotonic() > end - 20 * sizes.minutes:  # the rest is for the laws
      note(f'{count} together: left out, no time is left')
      continue
    found['trials'].append(trials(sizes, count))
    note(found['trials'][-1])
  found['laws'] = laws(sizes, max(end - time.monotonic(), 1.0))
  note(found['laws'])
  return found


def main() -> None:
  """Read the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tiny', action='store_true', help='small sizes')
  parser.add_argument('--out', default='results/accelerator.json')
  args = parser.parse_args()
  measured(tiny() if args.tiny else full(), pathlib.Path(args.out))


if __name__ == '__main__':
  main()
