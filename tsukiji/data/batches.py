"""Batches: the examples of a step, as a pure function of its number."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tsukiji.data.datasets import Split

AUGMENTATIONS = ('flip', 'shift')


def steps_per_epoch(examples: int, batch_size: int) -> int:
  """Return the number of full batches in one epoch, at least one."""
  return max(1, examples // batch_size)


def order(examples: int, seed: int, epoch: int) -> np.ndarray:
  """Return the permutation of one epoch, `[examples]`."""
  return np.random.default_rng((seed, epoch)).permutation(examples)


def training(
  split: Split,
  batch_size: int,
  seed: int,
  step: int,
  augment: tuple[str, ...] = (),
  teacher_outputs: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yield the batches of steps `step, step + 1, ...` without end.

  A batch depends only on the seed and the step, so that a run resumed at any
  step gets the batches of an uninterrupted one.

  Args:
    split: The training examples.
    batch_size: Examples per batch.
    seed: Seed of the order and of augmentation.
    step: The first step.
    augment: Any of 'flip' (left to right) and 'shift' (up to 2 pixels).
    teacher_outputs: Precomputed teacher outputs by example.

  Yields:
    Images `[batch, height, width, channels]`, labels `[batch]`, and the
    teacher outputs if given.
  """
  count = steps_per_epoch(len(split.y), batch_size)
  while True:
    epoch, first = divmod(step, count)
    indices = order(len(split.y), seed, epoch)
    for i in range(first, count):
      chosen = indices[i * batch_size : (i + 1) * batch_size]
      # Not 0: numpy ignores it, and the stream would be that of the order.
      rng = np.random.default_rng((seed, epoch, i + 1))
      outputs = () if teacher_outputs is None else (teacher_outputs[chosen],)
      yield augmented(split.x[chosen], rng, augment), split.y[chosen], *outputs
      step += 1


def augmented(
  x: np.ndarray, rng: np.random.Generator, kinds: tuple[str, ...]
) -> np.ndarray:
  """Return images `[batch, height, width, channels]`, randomly augmented."""
  if 'flip' in kinds:
    flip = rng.random(len(x)) < 0.5
    x = np.where(flip[:, None, None, None], x[:, :, ::-1], x)
  if 'shift' in kinds:
    x = _shifted(x, rng.integers(-2, 3, (len(x), 2)))
  return x


def _shifted(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Move each image by its offset `[batch, 2]`; the border repeats."""
  _, height, width, _ = x.shape
  rows = np.clip(np.arange(height) + offsets[:, :1], 0, height - 1)
  columns = np.clip(np.arange(width) + offsets[:, 1:], 0, width - 1)
  images = np.arange(len(x))[:, None, None]
  return x[images, rows[:, :, None], columns[:, None, :]]


def padded(
  split: Split, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yield every example once, in batches of one size.

  Args:
    split: The examples to evaluate.
    batch_size: Examples per batch; the last one is padded with zeros.

  Yields:
    Images, labels, and a mask `[batch]` that is False for padding.
  """
  for start in range(0, len(split.y), batch_size):
    x = split.x[start : start + batch_size]
    y = split.y[start : start + batch_size]
    missing = batch_size - len(y)
    mask = np.pad(np.ones(len(y), bool), (0, missing))
    yield _filled(x, missing), _filled(y, missing), mask


def _filled(x: np.ndarray, count: int) -> np.ndarray:
  return np.pad(x, ((0, count),) + ((0, 0),) * (x.ndim - 1))


def over_devices() -> NamedSharding:
  """Return the sharding that splits a batch over all devices."""
  auto = (AxisType.Auto,)  # the compiler shards intermediate values
  mesh = jax.make_mesh((jax.device_count(),), ('batch',), auto)
  return NamedSharding(mesh, PartitionSpec('batch'))


def place(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Place a batch on the devices, each process its own shard."""
  if jax.process_count() == 1:
    return jax.device_put(x, sharding)
  share = len(x) // jax.process_count()
  start = share * jax.process_index()
  return jax.make_array_from_process_local_data(
    sharding, x[start : start + share], x.shape
  )
