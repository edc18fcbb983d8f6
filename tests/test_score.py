"""Scores: what is kept and what is chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import score
from compress.method import Ctx

W = jnp.array([[0.5, -3.0], [0.0, 2.0]])
CTX = Ctx(key=jax.random.key(7))


def test_magnitude_ignores_the_sign() -> None:
  assert score.magnitude('w', W, Ctx()).tolist() == [[0.5, 3.0], [0.0, 2.0]]


def test_random_is_a_function_of_path_and_key() -> None:
  first = np.asarray(score.random('a/kernel', W, CTX))
  again = jax.jit(lambda w: score.random('a/kernel', w, CTX))(-W)
  np.testing.assert_array_equal(again, first)
  assert len(set(first.ravel().tolist())) == first.size
  other_path = score.random('b/kernel', W, CTX)
  other_key = score.random('a/kernel', W, Ctx(key=jax.random.key(8)))
  assert not np.any(np.asarray(other_path) == first)
  assert not np.any(np.asarray(other_key) == first)


def test_random_is_uniform() -> None:
  drawn = np.asarray(score.random('w', jnp.zeros((100, 100)), CTX))
  counts, _ = np.histogram(drawn, bins=10, range=(0.0, 1.0))
  # Each bin is binomial with mean 1000 and standard deviation 30.
  assert counts.sum() == drawn.size
  assert np.all(np.abs(counts - 1000) < 150)


def test_random_needs_a_key() -> None:
  with pytest.raises(ValueError, match='score.random at fc/kernel.*key'):
    score.random('fc/kernel', W, Ctx())


def test_scores_are_known_by_name() -> None:
  assert score.SCORES['magnitude'] is score.magnitude
  assert score.SCORES['random'] is score.random
