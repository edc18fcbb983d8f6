"""Chunks of fours hold every weight, and their sums fit in 16 bits."""

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np

from tsukiji.deploy.c.kernels.chunks import LIMIT, chunks, words


@hp.given(
  seed=st.integers(0, 99),
  count=st.integers(0, 9),
  outputs=st.integers(1, 4),
  top=st.sampled_from([255, 127, 15]),
  spread=st.sampled_from([2, 40, 127]),
)
def test_sums_of_chunks_fit_and_are_those_of_all(
  seed: int, count: int, outputs: int, top: int, spread: int
) -> None:
  generator = np.random.default_rng(seed)
  shape = (count, 4, outputs)
  weights = np.clip(generator.normal(0, spread, shape).round(), -127, 127)
  places = generator.permutation(50)[:count]
  found = chunks(weights, places, top)
  x = generator.choice([0, top], (50, 4))
  want = np.einsum('nk,nko->o', x[places], weights)
  held = found.weights.reshape(-1, found.length, 2, 2)
  read = x[found.places].reshape(held.shape)
  products = (held * read).sum(axis=3)
  for some in (np.maximum(held, 0), np.minimum(held, 0)):
    assert np.all(np.abs(top * some.sum(axis=(1, 3))) <= LIMIT)
  assert len(products) == found.counts.sum()
  owner = np.repeat(np.arange(outputs), found.counts)
  got = np.bincount(owner, products.sum(axis=(1, 2)), outputs)
  np.testing.assert_array_equal(got, want)


def test_zeros_take_no_place_and_few_bits_make_long_chunks() -> None:
  weights = np.zeros((32, 4, 1))
  weights[::2] = 1
  found = chunks(weights, np.arange(32), 255)
  assert (found.length, found.counts.tolist()) == (8, [2])
  assert set(found.places.tolist()) - {0} == {*range(2, 32, 2)}
  assert words(np.int64([[-1, 0, 0, 127]])).tolist() == [0x7F0000FF]
