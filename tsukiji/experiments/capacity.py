"""Checks that batches fit the data and networks fit the memory."""

import math
import os
import pathlib

import jax
from ml_collections import ConfigDict

from tsukiji.config import settings
from tsukiji.errors import expect
from tsukiji.experiments.jobs import Experiment
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

FLOAT = 4  # bytes
COPIES = 4  # of each weight in training: itself, its gradient, two moments


def check(experiment: Experiment) -> None:
  """Check that batches fit the data and that networks fit the memory.

    Args:
  experiment: An experiment without ranges.

    Raises:
      ValueError: If a batch of training is larger than the training set, or if
      a step or a timed call needs more than the memory.
  """
  config = experiment.config
  runs = {'config.train': config.train}
  for name in config.networks:
    runs[f'config.networks.{name}'] = settings.training_of(config, name)
  for name in config.recipes:
    runs[f'config.recipes.{name}'] = settings.finetuning_of(config, name)
  for where, chosen in runs.items():
    _expect_examples(where, chosen, len(experiment.data.train.y))
  for name, spec in experiment.specs.items():
    chosen = settings.training_of(config, name)
    need = training_bytes(spec, chosen.batch_size)
    _expect_room(f'config.networks.{name}', need, chosen.batch_size)
    largest = max(config.measure.batches)
    _expect_room('config.measure.batches', call_bytes(spec, largest), largest)


def _expect_examples(where: str, chosen: ConfigDict, count: int) -> None:
  what = f'at most the {count} training examples'
  right = chosen.batch_size <= count
  expect(f'{where}.batch_size', right, what, chosen.batch_size)


def _expect_room(where: str, need: int, batch: int) -> None:
  room = memory()
  what = f'what fits into {room / 2**30:.1f} GiB of memory'
  got = f'{need / 2**30:.1f} GiB at batch {batch}'
  expect(where, need <= room, what, got, 'Use smaller sizes or batches.')


def training_bytes(spec: Spec, batch: int) -> int:
  """Return a lower bound of the memory of a training step, in bytes.

  Weights with their gradients and moments, and the outputs of all products.
  """
  weights = outputs = 0
  for step in sp.walk(spec):
    if isinstance(step.layer, sp.Conv | sp.Dense):
      weights += _weights(step)
      outputs += math.prod(step.after)
  return FLOAT * (COPIES * weights + batch * outputs)


def call_bytes(spec: Spec, batch: int) -> int:
  """Return a lower bound of the memory of a call, in bytes."""
  largest = max((math.prod(step.after) for step in sp.walk(spec)), default=0)
  return FLOAT * batch * (math.prod(spec.input_shape) + largest)


def _weights(step: sp.Step) -> int:
  layer, channels = step.layer, step.before[-1]
  if isinstance(layer, sp.Conv):
    inputs = math.prod(layer.kernel) * channels // layer.groups
    return inputs * step.after[-1]
  return channels * step.after[-1]


def memory() -> int:
  """Return the memory of this machine, or of its accelerators, in bytes."""
  found = [_of_device(device) for device in jax.local_devices()]
  if all(found):
    return sum(found)
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')  # of a container
  text = limit.read_text().strip() if limit.exists() else ''
  return min(pages, int(text)) if text.isdigit() else pages


def _of_device(device: jax.Device) -> int:
  stats = device.memory_stats() if device.platform != 'cpu' else None
  return int((stats or {}).get('bytes_limit', 0))
