"""The rate against counted entropies, and what it does in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import recipe, tree
from compress.method import Ctx, chain
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import LatentWeight
from compress.regularize import penalties
from compress.regularize.entropy import entropy, geometric_entropy, node_bits
from compress.schedule import linear

DRAWN = np.random.default_rng(0)


@pytest.mark.parametrize('theta', [0.01, 0.3, 0.5, 0.9])
def test_geometric_entropy_matches_the_distribution(theta: float) -> None:
  k = np.arange(-2000, 2001)
  p = theta ** np.abs(k) * (1 - theta) / (1 + theta)
  assert p.sum() == pytest.approx(1)
  mean = (p * np.abs(k)).sum()
  logs = np.log2((1 - theta) / (1 + theta)) + np.abs(k) * np.log2(theta)
  want = -(p * logs).sum()
  found = geometric_entropy(jnp.float32(mean))
  assert float(found) == pytest.approx(want, rel=1e-4)
  slope = jax.grad(geometric_entropy)(jnp.float32(mean))
  assert float(slope) == pytest.approx(-np.log2(theta), rel=1e-4)


def test_the_geometric_entropy_is_an_upper_bound() -> None:
  # So it is never less than what a coder takes by the true frequencies.
  codes = np.array([0] * 70 + [1] * 9 + [-1] * 11 + [5] * 10)
  _, counts = np.unique(codes, return_counts=True)
  p = counts / counts.sum()
  mean = np.abs(codes).mean()
  assert float(geometric_entropy(jnp.float32(mean))) > -(p * np.log2(p)).sum()


@pytest.mark.slow
@pytest.mark.parametrize('text', ['quantize.uniform(4)', 'quantize.lsq(3)'])
def test_layers_are_weighted_by_size(text: str) -> None:
  params = {
    'a': {'kernel': jnp.float32(DRAWN.normal(size=(30, 20)))},
    'b': {'kernel': jnp.float32(DRAWN.laplace(size=(10, 5)))},
  }
  nodes = recipe.parse(text).init(params, Ctx())
  total = 0.0
  for node in tree.find(LatentWeight, nodes).values():
    mean = np.abs(np.asarray(node.quantize().codes)).mean()
    total += node.w.size * float(geometric_entropy(mean + 1 / node.w.size))
  method = entropy(0.3, schedule=linear(0.0, 1.0))
  halfway = Ctx(5, 10)
  found = method.loss(nodes, halfway)
  assert float(found) == pytest.approx(0.15 * total / 650, rel=1e-4)


@pytest.mark.slow
def test_training_reduces_the_bits() -> None:
  params = {'a': {'kernel': jnp.float32(DRAWN.normal(size=(40, 30)))}}
  method = chain(recipe.parse('quantize.lsq(4)'), entropy(1.0))
  nodes = method.init(params, Ctx())
  before = float(method.loss(nodes, Ctx(0, 10)))
  trainable, frozen = tree.split(nodes)
  tx = optax.adam(1e-2)
  opt = tx.init(trainable)
  for _ in range(80):
    slope = jax.grad(lambda f: method.loss(tree.merge(f, frozen), Ctx(0, 10)))(
      trainable
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    assert np.abs(slope['a']['kernel'].step).max() > 0
    updates, opt = tx.update(slope, opt)
    trainable = optax.apply_updates(trainable, updates)
  after = float(method.loss(tree.merge(trainable, frozen), Ctx(0, 10)))
  assert after < 0.5 * before


@pytest.mark.slow
def test_zeros_have_finite_gradients() -> None:
  node = FakeQuantized(jnp.zeros((20, 10)).at[0].set(1.0), None, 4)
  slope = jax.grad(lambda w: node_bits(node.replace(w=w)))(node.w)
  assert np.isfinite(slope).all()
  empty = node.replace(w=jnp.zeros((2000, 10)).at[0].set(1.0))
  assert float(node_bits(empty)) / empty.w.size < 0.05


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda: entropy(-1.0),
      'regularize.entropy: expected a strength of 0',
    ),
    (
      lambda: entropy(1.0, schedule=3),
      'regularize.entropy: expected a schedule',
    ),
    (lambda: penalties.l1(-1.0), 'regularize.l1: expected a strength of 0'),
    (
      lambda: entropy(1.0).loss({'w': jnp.ones(3)}, Ctx()),
      'got none. Quantize',
    ),
  ],
)
def test_impossible_arguments_are_refused(make, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    make()
