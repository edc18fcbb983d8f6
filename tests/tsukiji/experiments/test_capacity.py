"""Batches beyond the data, and networks beyond the memory."""

import pathlib

import numpy as np
import pytest

from tests.runs import TINY
from tests.tsukiji.experiments.test_rows import tiny
from tsukiji.data.datasets import Data, Split
from tsukiji.experiments import capacity, jobs

MOMENTS = ((0.0,), (1.0,))


def sketched(config: object) -> jobs.Experiment:
  """Return an experiment on 200 empty images of 8 x 8."""
  split = Split(np.zeros((200, 8, 8, 1), np.uint8), np.zeros(200, np.int32))
  data = Data('none', split, split, split, ('a', 'b'))
  specs = jobs.specs_of(config, data, MOMENTS)
  return jobs.Experiment(config, pathlib.Path(), data, specs)


def test_bytes_of_a_step_and_a_call() -> None:
  # A convolution of 3 x 3 x 1 x 4 weights to 3 x 3 x 4, and one of 36 x 3.
  assert capacity.training_bytes(TINY, 10) == 4 * (
    4 * (36 + 108) + 10 * (36 + 3)
  )
  assert capacity.call_bytes(TINY, 10) == 4 * 10 * (25 + 36)


def test_what_fits_is_allowed() -> None:
  capacity.check(sketched(tiny(int8='quantize.int8()')))


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('train.batch_size', 201, 'train.batch_size: expected at most the 200 tra'),
    ('finetune.batch_size', 300, 'recipes.int8.batch_size: expected at most'),
    ('networks.net.train', {'batch_size': 999}, 'net.batch_size: .* got 999'),
    ('measure.batches', (1, 10**9), r'batches: expected what fits .* GiB at'),
    ('networks.net.sizes', {'conv': (10**8, 8)}, 'networks.net: .* fits into'),
  ],
)
def test_what_does_not_fit_is_refused(
  path: str, value: object, said: str
) -> None:
  config = tiny(int8='quantize.int8()')
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=said):
    capacity.check(sketched(config))
