"""Time one training step of Tsukijinet2021 in JAX and in PyTorch on one core.

`python benchmarks/train_step.py [--torch=PYTHON] [--rounds=N]` runs every
variant in its own process, all pinned to one core, and lets them take turns in
blocks of steps: only ratios of neighboring blocks are trusted. Batch 128,
28x28x1, float32, AdamW with rate 2e-3 and weight decay 1e-2.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

BATCH = 128
BLOCK = 4  # steps between turns
CORE = max(os.sched_getaffinity(0))
RATE, DECAY = 2e-3, 1e-2
KEEP = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}
KEPT = ', memory kept'
Step = Callable[[], None]


def ours() -> Step:
  """Compile the project's own step on its own Tsukijinet2021."""
  import jax

  from tsukiji.config import settings
  from tsukiji.models import net as net_lib
  from tsukiji.models import zoo
  from tsukiji.training import step as step_lib

  spec = zoo.build('tsukijinet2021', (28, 28, 1), 10)
  chosen = settings.training(lr=RATE, weight_decay=DECAY, schedule='constant')
  plan = step_lib.plain(spec, chosen, 1000)
  step = step_lib.make_step(plan)
  state = [step_lib.init_state(plan, net_lib.init_variables(spec, 0), 0)]
  x = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
  labels = jax.numpy.arange(BATCH) % 10

  def advance() -> None:
    state[0] = jax.block_until_ready(step(state[0], x, labels))

  return advance


def stock() -> Step:
  """Compile a donated step of the same network in stock Flax layers."""
  import flax.linen as nn
  import jax
  import optax

  class Tsukijinet2021(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
      for filters in (32, 64):
        x = nn.Conv(filters, (5, 5), padding='VALID')(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
      x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
      return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(x))

  net, optimizer = Tsukijinet2021(), optax.adamw(RATE, weight_decay=DECAY)
  x = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
  labels = jax.numpy.arange(BATCH) % 10

  def step(state: tuple) -> tuple:
    params, stats, slots, key = state
    key, drop = jax.random.split(key)

    def loss(params: dict) -> tuple:
      logits, new = net.apply(
        {'params': params, 'batch_stats': stats},
        x,
        True,
        rngs={'dropout': drop},
        mutable=['batch_stats'],
      )
      cost = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return cost.mean(), new['batch_stats']

    grads, stats = jax.grad(loss, has_aux=True)(params)
    updates, slots = optimizer.update(grads, slots, params)
    return optax.apply_updates(params, updates), stats, slots, key

  begun = net.init(jax.random.key(1), x, False)
  params, stats = begun['params'], begun['batch_stats']
  state = [(params, stats, optimizer.init(params), jax.random.key(2))]
  run = jax.jit(step, donate_argnums=0)

  def advance() -> None:
    state[0] = jax.block_until_ready(run(state[0]))

  return advance


def torch_step() -> Step:
  """Build the same step in PyTorch: channels last, fused AdamW, one thread."""
  import torch
  from torch import nn

  torch.set_num_threads(1)
  layers = []
  for before, after in ((1, 32), (32, 64)):
    layers += [nn.Conv2d(before, after, 5), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.MaxPool2d(2)]
  layers += [nn.Flatten(), nn.Linear(1024, 256), nn.ReLU()]
  layers += [nn.Dropout(0.3), nn.Linear(256, 10)]
  net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(
    net.parameters(), lr=RATE, weight_decay=DECAY, fused=True
  )
  x = torch.randn(BATCH, 1, 28, 28).to(memory_format=torch.channels_last)
  labels = torch.arange(BATCH) % 10

  def advance() -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()

  return advance


VARIANTS: dict[str, tuple[Callable[[], Step], dict[str, str]]] = {
  'torch': (torch_step, {}),
  'torch' + KEPT: (torch_step, KEEP),
  'stock JAX': (stock, {}),
  'tsukiji': (ours, {}),
  'tsukiji' + KEPT: (ours, KEEP),
}


def work(name: str) -> None:
  """Reply to each line on stdin with the milliseconds of a block of steps."""
  advance = VARIANTS[name][0]()
  for _ in range(3):
    advance()
  print('ready', flush=True)
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(BLOCK):
      advance()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(cpu * 1e3 / BLOCK, wall * 1e3 / BLOCK, flush=True)


def start(name: str, python: str) -> subprocess.Popen | None:
  """Start a worker and await its first steps; None if it cannot run."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  worker = subprocess.Popen(
    [python, __file__, f'--worker={name}'],
    env={**os.environ, 'PYTHONPATH': root, **VARIANTS[name][1]},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  return worker if worker.stdout.readline() == 'ready\n' else None


def measure(
  workers: dict[str, subprocess.Popen], rounds: int
) -> dict[str, list[tuple[float, float]]]:
  """Let the workers take turns; give (process, wall) ms a step and round."""
  times = {name: [] for name in workers}
  for _ in range(rounds):
    for name, worker in workers.items():
      worker.stdin.write('go\n')
      worker.stdin.flush()
      times[name].append(tuple(map(float, worker.stdout.readline().split())))
  return times


def report(times: dict[str, list[tuple[float, float]]]) -> None:
  """Print samples a second of process time, and paired ratios to torch."""
  print(f'{"variant":26} {"samples/s (quartiles)":>22} {"wall/cpu":>9}', end='')
  print('   against torch, same memory' if 'torch' in times else '')
  for name, pairs in times.items():
    cpu = [c for c, _ in pairs]
    low, mid, high = statistics.quantiles((BATCH / c * 1e3 for c in cpu), n=4)
    slack = statistics.median(w / c for c, w in pairs)
    line = f'{name:26} {mid:8.0f} ({low:.0f}-{high:.0f}) {slack:9.2f}'
    if 'torch' in times:
      like = KEPT if name.endswith(KEPT) else ''  # same allocator, fair ratio
      base = [c for c, _ in times['torch' + like]]
      ratios = [t / c for t, c in zip(base, cpu, strict=True)]
      low, mid, high = statistics.quantiles(ratios, n=4)
      line += f'   {mid:.2f} ({low:.2f}-{high:.2f})'
    print(line)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--torch', default=sys.executable, metavar='PYTHON')
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument('--worker', choices=VARIANTS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  os.sched_setaffinity(0, {CORE})
  if args.worker:
    work(args.worker)
    return
  workers, found = {}, [args.torch, '-c', 'import torch']
  if subprocess.run(found, capture_output=True, check=False).returncode:
    print('torch is missing: pip install torch==2.13.0, or name a --torch=')
  for name in VARIANTS:
    python = args.torch if name.startswith('torch') else sys.executable
    worker = start(name, python)
    if worker:
      workers[name] = worker
  report(measure(workers, args.rounds))
  for worker in workers.values():
    worker.stdin.close()
    worker.wait()


if __name__ == '__main__':
  main()
