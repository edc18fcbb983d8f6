"""Time one training step of a network in JAX and in PyTorch on one core.

`python -m benchmarks.train_step [--network=NAME] [--torch=PYTHON] [--rounds=N]`
runs every variant in its own process, all pinned to one core, and lets them
take turns in blocks of steps: only ratios of neighboring blocks are trusted.
Batch 128, 28x28x1, float32, AdamW with rate 2e-3 and weight decay 1e-2.
Networks are Tsukijinet2021 and three small ones of the zoo's `student`; the
layers of PyTorch are those of the spec, channels last.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH = 128
BLOCK = 4  # steps between turns
CORE = max(os.sched_getaffinity(0))
RATE, DECAY = 2e-3, 1e-2
KEEP = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 30)}
KEPT = ', memory kept'
Step = Callable[[], None]
NETWORKS: dict[str, tuple[str, dict]] = {
  'tsukijinet2021': ('tsukijinet2021', {}),
  'plain': ('student', {'width': 16}),
  'residual': ('student', {'width': 8, 'blocks': 1, 'block': 'residual'}),
  'depthwise': ('student', {'width': 16, 'block': 'depthwise'}),
}


def ours(text: str) -> Step:
  """Compile the project's own step on a network of its own."""
  import jax

  from tsukiji.config import settings
  from tsukiji.models import net as net_lib
  from tsukiji.models import spec as sp
  from tsukiji.training import step as step_lib

  spec = sp.loads(text)
  chosen = settings.training(lr=RATE, weight_decay=DECAY, schedule='constant')
  plan = step_lib.plain(spec, chosen, 1000)
  step = step_lib.make_step(plan)
  state = [step_lib.init_state(plan, net_lib.init_variables(spec, 0), 0)]
  x = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
  labels = jax.numpy.arange(BATCH) % 10

  def advance() -> None:
    state[0] = jax.block_until_ready(step(state[0], x, labels))

  return advance


def stock(text: str) -> Step:
  """Compile a donated step of Tsukijinet2021 in stock Flax layers."""
  del text
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


def torch_step(text: str) -> Step:
  """Build the same step in PyTorch: channels last, fused AdamW, one thread."""
  import torch
  from torch import nn

  torch.set_num_threads(1)
  x = torch.randn(BATCH, 1, 28, 28).to(memory_format=torch.channels_last)
  net = in_torch(json.loads(text)['layers'])
  net(x)  # which tells lazy layers the number of their inputs
  net = net.to(memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(
    net.parameters(), lr=RATE, weight_decay=DECAY, fused=True
  )
  labels = torch.arange(BATCH) % 10

  def advance() -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()

  return advance


def in_torch(layers: list[dict]) -> Any:
  """Return layers of a spec, as JSON, in PyTorch."""
  import torch
  from torch import nn

  class Sum(nn.Module):
    def __init__(self, paths: list[list[dict]]):
      super().__init__()
      self.paths = nn.ModuleList([in_torch(path) for path in paths])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
      first, *others = [path(x) for path in self.paths]
      return sum(others, first)

  def conv(x: dict) -> nn.Module:
    same = x['kernel'][0] // 2 if x['padding'] == 'SAME' else 0
    sizes = x['features'], x['kernel'], x['strides'], same
    return nn.LazyConv2d(*sizes, groups=x['groups'], bias=x['bias'])

  make: dict[str, Callable[[dict], nn.Module]] = {
    'Act': lambda x: nn.ReLU(),
    'Branch': lambda x: Sum(x['paths']),
    'Conv': conv,
    'Dense': lambda x: nn.LazyLinear(x['features'], bias=x['bias']),
    'Dropout': lambda x: nn.Dropout(x['rate']),
    'Flatten': lambda x: nn.Flatten(),
    'GlobalMean': lambda x: nn.Sequential(
      nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    'Norm': lambda x: nn.LazyBatchNorm2d(),
    'Pool': lambda x: nn.MaxPool2d(x['window'], x['strides']),
    'Standardise': lambda x: nn.Identity(),
  }
  return nn.Sequential(*[make[x['layer']](x) for x in layers])


VARIANTS: dict[str, tuple[Callable[[str], Step], dict[str, str]]] = {
  'torch': (torch_step, {}),
  'torch' + KEPT: (torch_step, KEEP),
  'stock JAX': (stock, {}),
  'tsukiji': (ours, {}),
  'tsukiji' + KEPT: (ours, KEEP),
}


def work(name: str, text: str) -> None:
  """Reply to each line on stdin with the milliseconds of a block of steps."""
  advance = VARIANTS[name][0](text)
  for _ in range(3):
    advance()
  print('ready', flush=True)
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(BLOCK):
      advance()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(cpu * 1e3 / BLOCK, wall * 1e3 / BLOCK, flush=True)


def start(name: str, python: str, text: str) -> subprocess.Popen | None:
  """Start a worker and await its first steps; None if it cannot run."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  worker = subprocess.Popen(
    [
      python,
      '-m',
      'benchmarks.train_step',
      f'--worker={name}',
      f'--spec={text}',
    ],
    cwd=root,
    env={**os.environ, **VARIANTS[name][1]},
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
  parser.add_argument('--network', choices=NETWORKS, default='tsukijinet2021')
  parser.add_argument('--spec', help=argparse.SUPPRESS)
  parser.add_argument('--torch', default=sys.executable, metavar='PYTHON')
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument('--worker', choices=VARIANTS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.rounds < 2:
    parser.error(f'--rounds: expected 2 or more, got {args.rounds}')
  os.sched_setaffinity(0, {CORE})
  if args.worker:
    work(args.worker, args.spec)
    return
  from tsukiji.models import spec as sp
  from tsukiji.models import zoo

  kind, sizes = NETWORKS[args.network]
  text = sp.dumps(zoo.build(kind, (28, 28, 1), 10, **sizes))
  workers, found = {}, [args.torch, '-c', 'import torch']
  left_out = () if args.network == 'tsukijinet2021' else ('stock',)
  if subprocess.run(found, capture_output=True, check=False).returncode:
    print('torch is missing: pip install torch==2.13.0, or name a --torch=')
    left_out += ('torch',)
  for name in VARIANTS:
    if name.startswith(left_out):
      continue
    python = args.torch if name.startswith('torch') else sys.executable
    worker = start(name, python, text)
    if worker:
      workers[name] = worker
  report(measure(workers, args.rounds))
  for worker in workers.values():
    worker.stdin.close()
    worker.wait()


if __name__ == '__main__':
  main()
