"""Quantization-aware training beside qwix, on the same networks and steps.

`pip install qwix && python -m benchmarks.qat` trains a convolutional network
and a transformer on handwritten digits in floats, then continues with 8- and
4-bit weights and inputs: by qwix (`QtProvider`) and by `compress`. It prints
accuracies over seeds, and the time of a step, measured alternately in one
process.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import compress

FLOAT_STEPS, STEPS, BATCH, TRAINED = 600, 300, 128, 1400


class Cnn(nn.Module):
  """Two convolutions and two dense layers."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of images `[batch, 8, 8]`."""
    x = nn.relu(nn.Conv(32, (3, 3))(x[..., None]))
    x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
    x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
    return nn.Dense(10)(x)


class Transformer(nn.Module):
  """Two blocks on the rows of an image."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return logits of images `[batch, 8, 8]`."""
    x = nn.Dense(64)(x)
    x = x + self.param('place', nn.initializers.normal(0.1), (8, 64))
    for _ in range(2):
      y = nn.LayerNorm()(x)
      x = x + nn.MultiHeadDotProductAttention(4)(y, y)
      y = nn.gelu(nn.Dense(128)(nn.LayerNorm()(x)))
      x = x + nn.Dense(64)(y)
    return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
  'CNN': Cnn,
  'transformer': Transformer,
}
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
X = jnp.float32(images[order].reshape(-1, 8, 8) / 16)
Y = jnp.int32(labels[order])


def loss_of(apply: Callable[..., Any]) -> Callable[..., Any]:
  """Return the mean cross entropy of a network."""

  def loss(params: Any, batch: Any) -> Any:
    x, y = batch
    logits = apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  return loss


def batches(seed: int, steps: int) -> Any:
  """Yield random batches."""
  drawn = np.random.default_rng(seed)
  for _ in range(steps):
    rows = drawn.choice(TRAINED, BATCH, replace=False)
    yield X[rows], Y[rows]


def by_optax(apply: Callable[..., Any]) -> tuple[Any, Any]:
  """Return the start of a plain loop, and its step."""
  tx, loss = optax.adam(1e-3), loss_of(apply)

  @jax.jit
  def step(params: Any, opt: Any, i: Any, batch: Any) -> Any:
    del i
    grads = jax.grad(loss)(params, batch)
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt

  return lambda params: (params, tx.init(params)), step


def by_compress(apply: Callable[..., Any], text: str) -> tuple[Any, Any]:
  """Return the start of a loop with a method, and its step."""
  tx, loss, method = optax.adam(1e-3), loss_of(apply), compress.parse(text)

  def begin(params: Any) -> Any:
    probe = compress.probe(apply, params, X[:256])
    params = compress.init(method, params, probe, steps=STEPS)
    return params, tx.init(compress.trainable(params))

  @jax.jit
  def step(params: Any, opt: Any, i: Any, batch: Any) -> Any:
    run = {'step': i, 'steps': STEPS}
    _, grads = compress.value_and_grad(loss, method)(params, batch, **run)
    free = compress.trainable(params)
    updates, opt = tx.update(grads.trainable, opt, free)
    return compress.update(method, params, updates, grads, **run), opt

  return begin, step


def by_qwix(network: nn.Module, bits: int) -> Callable[..., Any]:
  """Return a network whose products qwix quantizes."""
  import qwix

  kind = f'int{bits}'
  rule = qwix.QtRule(module_path='.*', weight_qtype=kind, act_qtype=kind)
  model = qwix.quantize_model(network, qwix.QtProvider([rule]))
  return lambda params, x: model.apply({'params': params}, x)


def accuracy(apply: Callable[..., Any], params: Any) -> float:
  """Return the percentage of the held-out images that is right."""
  guess = jnp.argmax(jax.jit(apply)(params, X[TRAINED:]), -1)
  return 100 * float((guess == Y[TRAINED:]).mean())


def trained(begin: Any, step: Any, params: Any, seed: int, steps: int) -> Any:
  """Return the parameters after some steps."""
  params, opt = begin(params)
  for i, batch in enumerate(batches(seed, steps)):
    params, opt = step(params, opt, jnp.int32(i), batch)
  return params


def alternated(ways: dict[str, Any], params: Any) -> dict[str, list[float]]:
  """Return milliseconds of a step of each way, measured in turn."""
  batch, states, times = next(batches(0, 1)), {}, {name: [] for name in ways}
  for name, (begin, step) in ways.items():
    states[name] = begin(params)
    for i in range(3):
      states[name] = step(*states[name], jnp.int32(i), batch)
    jax.block_until_ready(states[name])
  for _ in range(40):
    for name, (_, step) in ways.items():
      start = time.perf_counter()
      for i in range(5):
        states[name] = step(*states[name], jnp.int32(i), batch)
      jax.block_until_ready(states[name])
      times[name].append(200 * (time.perf_counter() - start))
  return times


def compare(name: str, bits: int, seeds: int) -> None:
  """Print a row of the table for each way."""
  network = NETWORKS[name]()

  def apply(params: Any, x: jax.Array) -> Any:
    return network.apply({'params': params}, x)

  quantized = by_qwix(network, bits)
  ways = {
    'floats': (apply, *by_optax(apply)),
    'qwix': (quantized, *by_optax(quantized)),
    'uniform': (
      apply,
      *by_compress(apply, f'quantize.uniform({bits}, {bits})'),
    ),
    'lsq': (apply, *by_compress(apply, f'quantize.lsq({bits}, {bits})')),
  }
  begun = jax.jit(network.init)(jax.random.key(0), X[:1])['params']
  try:
    trained(*ways['qwix'][1:], begun, 0, 1)
  except jax.errors.JaxRuntimeError as e:
    print(f'| {name} | {bits} | qwix | {str(e)[:150]} | | |', flush=True)
    del ways['qwix']
  found: dict[str, list[float]] = {way: [] for way in ways}
  for seed in range(seeds):
    start = jax.jit(network.init)(jax.random.key(seed), X[:1])['params']
    begun = trained(*by_optax(apply), start, seed, FLOAT_STEPS)
    for way, (run, begin, step) in ways.items():
      params = trained(begin, step, begun, 100 + seed, STEPS)
      used = run

      def apply_compressed(params: Any, x: jax.Array, run: Any = run) -> Any:
        return compress.apply(run, params, x)

      used = apply_compressed if way in ('uniform', 'lsq') else run
      found[way].append(accuracy(used, params))
  times = alternated({k: way[1:] for k, way in ways.items()}, begun)
  base = times['qwix' if 'qwix' in ways else 'floats']
  for way, scores in found.items():
    ratio = statistics.median(
      t / b for t, b in zip(times[way], base, strict=True)
    )
    spread = statistics.stdev(scores) if seeds > 1 else 0.0
    print(
      f'| {name} | {bits} | {way} | {statistics.mean(scores):.2f} ± '
      f'{spread:.2f} | {statistics.median(times[way]):.2f} | {ratio:.2f} |',
      flush=True,
    )


def main(args: Sequence[str] | None = None) -> None:
  """Print the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=3)
  given = parser.parse_args(args)
  print('| network | bits | way | accuracy, % | step, ms | step / qwix |')
  print('|---|---:|---|---:|---:|---:|')
  for name in NETWORKS:
    for bits in (8, 4):
      compare(name, bits, given.seeds)


if __name__ == '__main__':
  main()
