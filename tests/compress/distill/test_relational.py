"""Relational distillation against loops in numpy."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.distill.relational import angles, distances, rkd
from compress.method import FEATURES, TEACHER, Batch, Ctx

POINTS = np.random.default_rng(0).normal(size=(5, 3))


def huber(x: float) -> float:
  return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def loss(mine: Any, reported: Any, **weights: float) -> Any:
  y = jnp.zeros(len(mine), jnp.int32)
  batch = Batch(y, y, jnp.float32(mine), jnp.float32(reported))
  return rkd(**weights).loss({}, Ctx(batch=batch))


@pytest.mark.slow
def test_distances_and_angles_match_the_paper() -> None:
  other = np.random.default_rng(1).normal(size=(5, 2))  # of another size
  each = []
  for x in (POINTS, other):
    d = {
      (i, j): np.linalg.norm(x[i] - x[j]) for i in range(5) for j in range(5)
    }
    mean = np.mean([v for (i, j), v in d.items() if i != j])
    lengths = [v / mean for v in d.values()]
    cosines = []
    for i, j, k in itertools.product(range(5), repeat=3):
      e, f = x[j] - x[i], x[k] - x[i]
      size = np.linalg.norm(e) * np.linalg.norm(f)
      cosines.append(e @ f / size if size else 0.0)
    each.append((lengths, cosines))
  parts = [
    np.mean([huber(a - b) for a, b in zip(*pair, strict=True)])
    for pair in zip(*each, strict=True)
  ]
  got = loss(POINTS, other, distance=25.0, angle=50.0)
  want = 25 * parts[0] + 50 * parts[1]
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_rkd_is_invariant_to_similarity_transforms() -> None:
  turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
  np.testing.assert_allclose(loss(POINTS, 3 * POINTS @ turn + 1), 0, atol=1e-9)


@pytest.mark.slow
def test_gradients_are_finite_where_points_meet() -> None:
  same = POINTS.copy()
  same[1] = same[0]
  grads = jax.grad(lambda x: loss(x, POINTS))(jnp.float32(same))
  assert np.isfinite(grads).all() and np.any(grads)
  assert np.isfinite(distances(jnp.ones((1, 2)))).all()
  assert np.isfinite(angles(jnp.ones((2, 2)))).all()


def test_features_are_required_only_for_layers() -> None:
  assert rkd().requires == {TEACHER}
  assert rkd('a').requires == {TEACHER, FEATURES}
  batch = Batch(jnp.ones(2), jnp.ones(2), jnp.ones((2, 2)))
  with pytest.raises(ValueError, match='rkd: expected a teacher'):
    rkd().init({}, Ctx(batch=batch))
