"""Hypergradients against differences of whole runs."""

import numpy as np
import pytest

from tests.test_population import DENSE
from tests.test_train import NET, examples
from tsukiji import hypergradient, settings
from tsukiji.population import VALUES

TRAIN = {
  'optimiser': 'sgd',
  'batch_size': 8,
  'lr': 0.02,
  'momentum': 0.5,
  'weight_decay': 0.05,
  'label_smoothing': 0.1,
}


def found(net, **changes) -> hypergradient.Found:
  """Return what six steps find."""
  given = settings.training(**(TRAIN | changes))
  split, validation = examples(40), examples(30, seed=1)
  return hypergradient.find(net, given, VALUES, split, validation, 6)


@pytest.mark.parametrize('net', [DENSE, NET], ids=['dense', 'convolutions'])
@pytest.mark.parametrize('name', VALUES)
def test_a_slope_is_the_difference_of_two_runs(net, name: str) -> None:
  value = TRAIN[name]
  gap = {'lr': 2e-4}.get(name, 1e-2)
  low, high = (found(net, **{name: value + d}).loss for d in (-gap, gap))
  want = (high - low) / (2 * gap)
  got = found(net).slopes[name]
  assert got == pytest.approx(want, rel=0.05, abs=2e-3)
  assert abs(got) > 1e-6


def test_what_has_no_slope_is_refused() -> None:
  with pytest.raises(ValueError, match='hypergradient: expected .*dropout'):
    hypergradient.find(
      DENSE, settings.training(), ('dropout',), examples(8), examples(8), 1
    )
  with pytest.raises(ValueError, match='the optimiser sgd, got .?adamw'):
    found(DENSE, optimiser='adamw')


def test_the_run_is_that_of_training_alone() -> None:
  from tsukiji import evaluation, population

  given = settings.training(**TRAIN)
  (alone,) = population.one_by_one(
    DENSE, [population.Member(given)], examples(40), 6
  )
  score = evaluation.evaluate(DENSE, alone, examples(30, seed=1))
  got = found(DENSE)
  np.testing.assert_allclose(got.loss, score.loss, rtol=1e-4)
  assert got.accuracy == score.accuracy
