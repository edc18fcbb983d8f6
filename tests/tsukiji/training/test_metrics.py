"""Goals, their scores and losses, against scikit-learn and loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier

from tests.tsukiji.models.test_net import variables
from tsukiji.data import datasets, readers
from tsukiji.data.datasets import Split
from tsukiji.models import spec as sp
from tsukiji.training import evaluate, losses, metrics

NET = sp.Spec(
  name='net',
  input_shape=(4, 4, 1),
  layers=(sp.Flatten(), sp.Dense(name='out', features=2)),
)


def drawn(*shape: int, seed: int = 0) -> Any:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_r2_is_that_of_scikit_learn() -> None:
  y, said = drawn(20, 1), drawn(20, 1, seed=1)
  want = r2_score(y, said)
  np.testing.assert_allclose(metrics.r2(said, y[:, 0]), want, rtol=1e-5)


def test_recall_is_the_nearest_other_neighbor() -> None:
  x, y = drawn(40, 3), np.arange(40) % 4
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  hits = []
  for i in range(40):
    rest = np.delete(np.arange(40), i)
    model = KNeighborsClassifier(1).fit(unit[rest], y[rest])
    hits.append(model.predict(unit[i : i + 1])[0] == y[i])
  got = metrics.recall_at_1(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(got, np.mean(hits), rtol=1e-6)


@pytest.mark.slow
def test_triplets_are_the_hardest_of_the_batch() -> None:
  x, y = drawn(8, 3), np.arange(8) % 3
  unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(float)
  total = 0.0
  for i in range(8):
    d = ((unit - unit[i]) ** 2).sum(1)
    total += max(0.0, d[y == y[i]].max() - d[y != y[i]].min() + 0.2)
  got = losses.triplet(jnp.asarray(x), jnp.asarray(y), 0.0)
  np.testing.assert_allclose(got.mean(), total / 8, rtol=1e-4)
  grads = jax.grad(lambda x: losses.triplet(x, jnp.asarray(y), 0.0).mean())(
    jnp.zeros((8, 3))
  )
  assert np.isfinite(grads).all()


@pytest.mark.parametrize(
  ('name', 'each'),
  [
    ('squared_error', lambda d: d**2),
    ('smooth_l1', lambda d: d**2 / 2 if abs(d) < 1 else abs(d) - 0.5),
  ],
)
def test_losses_of_numbers(name: str, each: Any) -> None:
  said, y = 2 * drawn(6, 1), drawn(6, seed=1)
  want = np.mean([each(a - b) for a, b in zip(said[:, 0], y, strict=True)])
  got = losses.LOSSES[name].value(jnp.asarray(said), jnp.asarray(y), 0.0)
  np.testing.assert_allclose(got.mean(), want, rtol=1e-5)


@pytest.mark.slow
def test_every_loss_has_a_goal_and_labels_of_its_kind() -> None:
  for name, loss in losses.LOSSES.items():
    y = metrics.no_labels(name, jnp.ones((4, 2)))
    assert y.shape == ((4, 2) if metrics.GOALS[loss.goal].real else (4,))
    assert np.isfinite(loss.value(jnp.ones((4, 2)), y, 0.0)).all()
    assert loss.value(jnp.ones((4, 2)), y, 0.0).shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('loss', 'y'),
  [('squared_error', drawn(23, 2)), ('triplet', np.arange(23) % 3)],
)
def test_sets_are_scored_at_once(loss: str, y: Any) -> None:
  found, x = variables(NET), drawn(23, 4, 4, 1)
  said = x.reshape(23, 16) @ found['params']['out']['kernel']
  said += found['params']['out']['bias']
  score = evaluate.evaluate(NET, found, Split(x, y), 8, loss)
  want = metrics.goal_of(loss).score(jnp.asarray(said), jnp.asarray(y))
  assert score.accuracy == pytest.approx(float(want), abs=1e-5)
  assert score.loss == pytest.approx(
    float(losses.LOSSES[loss].value(jnp.asarray(said), y, 0.0).mean()), rel=1e-4
  )


def test_turned_digits_are_the_digits_turned() -> None:
  plain, turned = readers.digits(), datasets.load('digits_angle')
  part = np.concatenate([turned.train.y, turned.validation.y])[:, 0]
  assert (part.min(), part.max()) == pytest.approx((-1, 1), abs=0.01)
  assert turned.classes == ('angle',)
  raw = readers.digits_angle()
  small = np.abs(raw.y_train) < 0.02
  near = np.abs(raw.x_train[small] - plain.x_train[small]).mean()
  far = np.abs(raw.x_train[~small] - plain.x_train[~small]).mean()
  assert small.any() and 3 * near < far


@pytest.mark.parametrize(
  'y', [np.float32([1, np.nan]), np.float32([1, 2, 3])], ids=['nan', 'count']
)
def test_numbers_that_cannot_be_labels(y: Any) -> None:
  x = np.zeros((2, 3, 3), np.uint8)
  raw = readers.Raw(x, y, x, np.zeros(2, np.float32), ('angle',))
  with pytest.raises(ValueError, match=r'mine y: expected \(2, 1\) finite'):
    readers.check_numbers(raw, 'mine')
