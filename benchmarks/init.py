"""Time and peak memory of every method's `init` on a ResNet-18.

`python -m benchmarks.init [--only=REGEX] [--limit=SECONDS]` runs each recipe in
a process of its own, on one core, on 11 million float32 parameters and images
of 64x64x3. Seconds are of the processor and include compiling; the memory is
the peak of the whole process, with the network and the examples. The loss
and the ranges of inputs are those of 32 examples; a method may ask for the
gradients or layer inputs of up to 256. The goal is less than 60 s and 4 GB.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

RECIPES = (
  'prune.weights(0.9)',
  'prune.weights(0.9, scope="global")',
  'prune.weights(0.9, score="taylor")',
  'prune.weights(0.9, score="fisher")',
  'prune.auto(0.9)',
  'prune.auto(macs=0.5, sensitivity="fisher")',
  'prune.blocks(0.5, (4, 4))',
  'prune.l0(1.0, sparsity=0.8)',
  'prune.l0(1.0, sparsity=0.8, per="channel")',
  'prune.lottery_ticket(0.9)',
  'prune.movement(0.9)',
  'prune.n_m(2, 4)',
  'prune.obs(0.8)',
  'prune.rigl(0.9)',
  'prune.threshold(1.0)',
  'prune.variational(1.0, sparsity=0.9)',
  'prune.filters(share=0.5)',
  'prune.filters(macs=0.5, score="taylor")',
  'prune.filters(macs=0.5, score="bn_scale")',
  'prune.filters(macs=0.5, scope="auto")',
  'prune.neurons(0.5)',
  'regularize.shrink(1e-3)',
  'quantize.int8()',
  'quantize.uniform(4, 8)',
  'quantize.lsq(4, 4)',
  'quantize.pact(4, 4)',
  'quantize.dorefa(4, 4)',
  'quantize.half()',
  'quantize.ternary()',
  'quantize.gradients(8)',
  'quantize.delay(0.5)',
  'quantize.fold_batch_norm(quantize.uniform(8, 8))',
  'quantize.bias_correction(quantize.uniform(4, 8))',
  'quantize.cross_layer_equalization()',
  'quantize.gptq(4, 8)',
  'quantize.auto(bits=4.0)',
  'quantize.adaround(4, 8)',
  'binary.weights()',
  'binary.inputs(ends=False)',
  'binary.bnn(ends=False)',
  'binary.xnor()',
  'binary.react()',
  'binary.loss_aware()',
  'lowrank.svd(8)',
  'lowrank.svd(64)',
  'lowrank.tucker((16, 16))',
  'lowrank.cp(16)',
  'lowrank.plus_sparse(4, 0.9)',
  'lowrank.learned_rank(1.0, of="macs")',
  'lowrank.auto(macs=0.5)',
  'share.hashed(0.1)',
  'share.kmeans(16)',
  'share.product(16, 4)',
  'structured.circulant(16)',
  'structured.toeplitz(2, 8)',
  'structured.butterfly(64)',
  'structured.fastfood(64)',
  'structured.auto(0.5)',
  'structured.crelu()',
  'structured.crop()',
  'structured.multi_bias()',
  'structured.rotate()',
  'admm(prune.weights(0.9), rounds=3)',
  'lc(lowrank.svd(8), rounds=3)',
)
SIDE, CLASSES = 64, 10
EXAMPLES, LOSS_EXAMPLES = 256, 32


def resnet() -> Any:
  """Return a Flax Linen ResNet-18 (He+ 2016, arXiv 1512.03385, table 1)."""
  import flax.linen as nn
  import jax

  class Block(nn.Module):
    """Two convolutions and a shortcut."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
      """Return the block on `[batch, height, width, channels]`."""
      y = _conv(self.features, 3, self.stride, 'conv1')(x)
      y = nn.relu(_norm('bn1')(y))
      y = _norm('bn2')(_conv(self.features, 3, 1, 'conv2')(y))
      if x.shape != y.shape:
        x = _conv(self.features, 1, self.stride, 'conv_skip')(x)
        x = _norm('bn_skip')(x)
      return nn.relu(x + y)

  class ResNet18(nn.Module):
    """The network of four stages of two blocks."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
      """Return logits of images."""
      x = nn.relu(_norm('bn')(_conv(64, 7, 2, 'conv')(x)))
      x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
      for stage in range(4):
        for i in range(2):
          stride = 2 if stage and not i else 1
          x = Block(64 << stage, stride, name=f'block{stage}_{i}')(x)
      return nn.Dense(CLASSES, name='head')(x.mean((1, 2)))

  def _conv(features: int, side: int, stride: int, name: str) -> nn.Conv:
    return nn.Conv(features, (side, side), stride, use_bias=False, name=name)

  def _norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, name=name)

  return ResNet18()


def context() -> tuple[Any, Any]:
  """Return the parameters and a context with all that a method may use."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  import compress
  from compress import tree
  from compress.method import Ctx

  network, drawn = resnet(), np.random.default_rng(0)
  x = jnp.float32(drawn.normal(size=(EXAMPLES, SIDE, SIDE, 3)))
  y = jnp.asarray(drawn.integers(0, CLASSES, EXAMPLES))
  variables = jax.jit(network.init)(jax.random.key(0), x[:1])
  start = variables['params']

  def run(params: Any, x: Any) -> Any:
    return network.apply({**variables, 'params': params}, x)

  def loss(params: Any, batch: Any) -> Any:
    inputs, labels = batch
    logits = run(params, inputs)
    hot = jax.nn.one_hot(labels, CLASSES)
    return -jnp.mean(jnp.sum(hot * jax.nn.log_softmax(logits), -1))

  probe = compress.probe(run, start, x, loss, (x, y))
  few = (x[:LOSS_EXAMPLES], y[:LOSS_EXAMPLES])
  small = compress.probe(run, start, few[0], loss, few)
  probe = probe._replace(loss=small.loss, grad=small.grad, ranges=small.ranges)
  gains = {
    path: jnp.ones(w.shape[-1])
    for path, w in tree.paths(start).items()
    if 'conv' in path
  }
  ranges = small.ranges(start)
  ctx = Ctx(0, 100, jax.random.key(1), None, ranges, None, probe, gains)
  return start, ctx


def measure(text: str) -> dict[str, Any]:
  """Return the cost of a recipe's `init`, or why it is refused."""
  import warnings

  import jax

  from compress import recipe

  params, ctx = context()
  jax.block_until_ready(ctx.stats)
  begin, clock = time.process_time(), time.perf_counter()
  row: dict[str, Any] = {}
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    try:
      jax.block_until_ready(recipe.parse(text).init(params, ctx))
    except (ValueError, MemoryError) as e:
      row['refused'] = str(e)[:300]
  row['said'] = [str(w.message)[:300] for w in said]
  row['seconds'] = time.process_time() - begin
  row['wall'] = time.perf_counter() - clock
  row['peak'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return row


def spawn(text: str, limit: int) -> dict[str, Any]:
  """Measure a recipe in a process of its own, with a limit of its time."""
  command = [sys.executable, '-m', 'benchmarks.init', f'--one={text}']
  core = max(os.sched_getaffinity(0))

  def bound() -> None:
    os.sched_setaffinity(0, {core})
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

  done = subprocess.run(  # noqa: PLW1509
    command,
    capture_output=True,
    text=True,
    check=False,
    preexec_fn=bound,
  )
  lines = done.stdout.splitlines()
  if done.returncode or not lines:
    last = (done.stderr.strip().splitlines() or [''])[-1]
    return {'refused': f'ended with {done.returncode}: {last[:200]}'}
  row: dict[str, Any] = json.loads(lines[-1])
  return row


def line(text: str, row: dict[str, Any]) -> str:
  """Return a row of the table.

  >>> line('quantize.half()', {'seconds': 1.23, 'peak': 1.5e9})
  '| `quantize.half()` | 1.2 | 1.50 |  |'
  """
  cost = [
    f'{row["seconds"]:.1f}' if 'seconds' in row else '-',
    f'{row["peak"] / 1e9:.2f}' if 'peak' in row else '-',
  ]
  note = row.get('refused') or '; '.join(row.get('said', ()))
  return f'| `{text}` | {" | ".join(cost)} | {note} |'


def main(args: Sequence[str] | None = None) -> None:
  """Print the table, a row as soon as it is measured."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', default='.*', help='which recipes')
  parser.add_argument('--limit', type=int, default=300, help='seconds')
  parser.add_argument('--one', help=argparse.SUPPRESS)
  given = parser.parse_args(args)
  if given.one:
    print(json.dumps(measure(given.one)))
    return
  print('| recipe | seconds | peak GB | note |\n|---|---:|---:|---|')
  for text in RECIPES:
    if re.search(given.only, text):
      print(line(text, spawn(text, given.limit)), flush=True)


if __name__ == '__main__':
  main()
