"""Which examples a step sees: coverage, resuming, augmentation."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tsukiji.models.test_spec import PATIENT
from tsukiji.data import batches
from tsukiji.data.datasets import Split

SIZES = {'examples': st.integers(1, 40), 'batch_size': st.integers(1, 12)}


def numbered(examples: int, side: int = 2) -> Split:
  """Return images that all differ, each labeled by its number."""
  shape = (examples, side, side + 1, 1)
  x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
  return Split(x, np.arange(examples, dtype=np.int32))


@PATIENT
@given(**SIZES, seed=st.integers(0, 2**40), epoch=st.integers(0, 3))
def test_an_epoch_sees_each_example_once(
  examples: int, batch_size: int, seed: int, epoch: int
) -> None:
  count = batches.steps_per_epoch(examples, batch_size)
  split = numbered(examples)
  stream = batches.training(split, batch_size, seed, epoch * count)
  observed = [y for _, y in itertools.islice(stream, count)]
  labels = np.concatenate(observed)
  assert len(np.unique(labels)) == len(labels)
  # Batches are full; what is left over waits for another epoch's order.
  assert len(labels) == (examples // batch_size) * batch_size or (
    count == 1 and len(labels) == examples
  )


@PATIENT
@given(
  **SIZES,
  start=st.integers(0, 60),
  augment=st.sampled_from([(), ('flip',), ('shift',), ('flip', 'shift')]),
)
def test_resuming_at_any_step_gives_the_same_stream(
  examples: int, batch_size: int, start: int, augment: tuple[str, ...]
) -> None:
  split = numbered(examples)
  complete = batches.training(split, batch_size, 7, 0, augment)
  resumed = batches.training(split, batch_size, 7, start, augment)
  expected = itertools.islice(complete, start, start + 4)
  for (x, y), (z, t) in zip(expected, resumed, strict=False):
    np.testing.assert_array_equal(z, x, strict=True)
    np.testing.assert_array_equal(t, y, strict=True)


def test_images_stay_with_their_labels() -> None:
  split = numbered(20)
  for x, y in itertools.islice(batches.training(split, 6, 0, 0), 9):
    np.testing.assert_array_equal(x, split.x[y])


def test_seeds_and_epochs_have_their_own_order() -> None:
  orders = [
    tuple(batches.order(50, seed, epoch).tolist())
    for seed, epoch in itertools.product(range(3), range(3))
  ]
  assert len(set(orders)) == 9
  assert {tuple(sorted(found)) for found in orders} == {tuple(range(50))}


def test_order_is_that_of_every_process() -> None:
  code = (
    'from tsukiji.data import batches; print(batches.order(30, 5, 2).tolist())'
  )
  reported = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', code],
    capture_output=True,
    check=True,
    text=True,
  )
  assert reported.stdout.strip() == str(batches.order(30, 5, 2).tolist())


@PATIENT
@given(**SIZES)
def test_padding_covers_all_once(examples: int, batch_size: int) -> None:
  split, found = numbered(examples), []
  for x, y, mask in batches.padded(split, batch_size):
    assert len(x) == len(y) == len(mask) == batch_size
    assert not np.any(x[~mask]) and not np.any(y[~mask])
    np.testing.assert_array_equal(x[mask], split.x[y[mask]])
    found += y[mask].tolist()
  assert found == list(range(examples))


def augmented(kinds: tuple[str, ...], seed: int = 0) -> tuple[np.ndarray, ...]:
  x = numbered(300, side=6).x
  return x, batches.augmented(x, np.random.default_rng(seed), kinds)


def test_flip_is_an_involution_on_some_images() -> None:
  x, once = augmented(('flip',))
  mirrored = (once == x[:, :, ::-1]).all((1, 2, 3))
  kept = (once == x).all((1, 2, 3))
  assert (mirrored ^ kept).all()
  assert 0.4 < mirrored.mean() < 0.6
  again = batches.augmented(once, np.random.default_rng(0), ('flip',))
  np.testing.assert_array_equal(again, x, strict=True)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
  """Look up each pixel on its own; beyond the border is the border."""
  out = np.empty_like(image)
  height, width, _ = image.shape
  for i, j in itertools.product(range(height), range(width)):
    row = min(max(i + down, 0), height - 1)
    out[i, j] = image[row, min(max(j + right, 0), width - 1)]
  return out


def test_shift_moves_each_image_by_up_to_two_pixels() -> None:
  x, shifted = augmented(('shift',))
  offsets = list(itertools.product(range(-2, 3), repeat=2))
  chosen = []
  for before, after in zip(x, shifted, strict=True):
    fits = [o for o in offsets if np.array_equal(moved(before, *o), after)]
    assert len(fits) == 1
    chosen += fits
  assert set(chosen) == set(offsets)


@pytest.mark.parametrize('kind', batches.AUGMENTATIONS)
def test_every_batch_is_augmented_in_its_own_way(kind: str) -> None:
  alike = Split(np.repeat(numbered(1, side=6).x, 32, 0), np.zeros(32))
  observed = [
    x.tobytes()
    for seed in (0, 1)
    for x, _ in itertools.islice(
      batches.training(alike, 16, seed, 0, (kind,)), 6
    )
  ]
  assert len(set(observed)) == 12


def test_no_augmentation_changes_nothing() -> None:
  x, same = augmented(())
  assert same is x


@pytest.mark.parametrize('kinds', [('flip',), ('shift',), ('flip', 'shift')])
def test_augmented_images_keep_their_type(kinds: tuple[str, ...]) -> None:
  x = np.full((4, 5, 3, 2), 200, np.uint8)
  found = batches.augmented(x, np.random.default_rng(0), kinds)
  np.testing.assert_array_equal(found, x, strict=True)


def test_a_placed_batch_is_the_batch() -> None:
  sharding = batches.over_devices()
  x = numbered(8).x
  placed = batches.place(x, sharding)
  assert isinstance(placed, jax.Array)
  assert placed.sharding == sharding
  np.testing.assert_array_equal(placed, x, strict=True)


@PATIENT
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_an_epoch_has_a_step(examples: int, batch_size: int) -> None:
  count = batches.steps_per_epoch(examples, batch_size)
  assert count >= 1
  assert (count - 1) * batch_size <= examples
  assert examples - count * batch_size < batch_size
