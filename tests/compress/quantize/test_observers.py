"""Clips against plain searches in NumPy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize import observers

DRAWN = np.random.default_rng(0).standard_t(3, size=(400, 3))
X = DRAWN.astype(np.float32)


def error(x: np.ndarray, share: float, bits: int, symmetric: bool) -> float:
  """Return the squared error of one column on a clipped grid."""
  x = x.astype(float)
  if symmetric:
    top = 2 ** (bits - 1) - 1
    step = share * np.abs(x).max() / top
    code = np.clip(np.round(x / step), -top, top)
  else:
    low, high = share * min(x.min(), 0), share * max(x.max(), 0)
    step = (high - low) / (2**bits - 1)
    zero = round(-low / step)
    code = np.clip(np.round(x / step) + zero, 0, 2**bits - 1) - zero
  return float(np.sum((step * code - x) ** 2))


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('bits', [2, 3, 4, 8])
def test_mse_is_the_least_error_of_a_search(bits: int, symmetric: bool) -> None:
  found = observers.mse(jnp.asarray(X), bits, symmetric)
  ratios = np.arange(1, observers.CANDIDATES + 1) / observers.CANDIDATES
  for column, share in zip(X.T, np.asarray(found), strict=True):
    errors = [error(column, part, bits, symmetric) for part in ratios]
    best = error(column, float(share), bits, symmetric)
    assert best <= min(errors) * (1 + 1e-3)
    if bits < 8:  # heavy tails are clipped
      assert best < 0.9 * errors[-1]


def test_quantiles_are_those_of_numpy() -> None:
  found = observers.clip_ratio(0.9, jnp.asarray(X), 4, True)
  size = np.abs(X)
  want = np.quantile(size, 0.9, axis=0) / size.max(axis=0)
  np.testing.assert_allclose(found, want, rtol=1e-5)
  found = observers.clip_ratio('percentile', jnp.asarray(X), 4, False)
  want = np.quantile(size, 0.999, axis=0) / size.max(axis=0)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def divergence(x: np.ndarray, stop: int, levels: int) -> float:
  """Return D(P || Q) of the first bins of a histogram, by loops."""
  size = np.abs(x)
  place = (size / size.max() * np.float32(observers.BINS)).astype(int)
  counts = np.bincount(
    np.minimum(place, observers.BINS - 1), minlength=observers.BINS
  )
  counts[0] = 0
  p = counts[:stop].astype(float)
  p[-1] += counts[stop:].sum()
  q = np.zeros(stop)
  for level in range(levels):
    inside = [j for j in range(stop) if j * levels // stop == level]
    used = [j for j in inside if p[j] > 0]
    for j in used:
      q[j] = sum(counts[k] for k in inside) / len(used)
  if not q.sum():
    return np.inf
  p, q = p / p.sum(), q / q.sum()
  with np.errstate(divide='ignore'):
    terms = [a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0]
  return float(np.sum(terms))


@pytest.mark.slow
@pytest.mark.parametrize(('symmetric', 'levels'), [(True, 8), (False, 16)])
def test_kl_is_the_least_divergence_of_a_search(
  symmetric: bool, levels: int
) -> None:
  x = np.abs(X[:, 0])
  share = float(observers.kl(jnp.asarray(x), 4, symmetric))
  stops = np.linspace(levels, observers.BINS, observers.CANDIDATES).astype(int)
  found = {int(stop): divergence(x, stop, levels) for stop in stops}
  assert found[round(share * observers.BINS)] <= min(found.values()) * 1.001
  assert share < 0.9  # the tail is clipped


def test_kl_distinguishes_signs() -> None:
  both = jnp.stack([jnp.abs(X[:, 0]), jnp.asarray(X[:, 0])], axis=1)
  found = observers.kl(both, 4, False)
  single = [
    observers.kl(both[:, 0], 4, False),
    observers.kl(both[:, 1], 4, True),
  ]
  np.testing.assert_array_equal(found, jnp.stack(single))
  assert float(observers.kl(both[:, 0], 16, True)) == 1.0


@pytest.mark.slow
@given(seed=st.integers(0, 99), size=st.sampled_from([1, 2, 17]))
@settings(max_examples=15, deadline=None)
def test_ternary_is_the_best_of_all_supports(seed: int, size: int) -> None:
  w = np.random.default_rng(seed).normal(size=size)
  sizes = np.sort(np.abs(w))[::-1]
  errors = []
  for k in range(1, size + 1):  # the k largest at their mean
    alpha = sizes[:k].mean()
    errors.append(np.sum((sizes[:k] - alpha) ** 2) + np.sum(sizes[k:] ** 2))
  share = float(observers.ternary(jnp.float32(w), 2, True))
  assert error(w, share, 2, True) <= min(errors) + 1e-5


@pytest.mark.parametrize('rule', [*observers.RULES, 0.99])
@pytest.mark.parametrize('symmetric', [True, False])
def test_shares_are_shares(rule: Any, symmetric: bool) -> None:
  odd = jnp.stack([jnp.zeros(9), jnp.full(9, 3.0), jnp.full(9, 2e-38)], axis=1)
  found = observers.clip_ratio(rule, odd, 4, symmetric)
  assert found.shape == (3,)
  assert np.all((found > 0) & (found <= 1))
  assert float(found[0]) == 1.0


@pytest.mark.parametrize('rule', ['max', 0.0, 1.5, -1, 1, None, True])
def test_other_rules_are_refused(rule: Any) -> None:
  with pytest.raises(ValueError, match='here: expected a clip of absmax, kl'):
    observers.expect('here', rule)
