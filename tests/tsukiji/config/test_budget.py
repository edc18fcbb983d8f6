"""Budgets: what they may limit, what they refuse, and flags that set them."""

from typing import Any

import pytest
from ml_collections import ConfigDict

import search
from configs import budget as study
from search import space as spaces
from tests.tsukiji.config.test_search_space import put
from tsukiji import errors
from tsukiji.config import budget, loading, settings, stages, validate


def tiny(**limits: float) -> ConfigDict:
  """Return the study of the packaged config with other limits."""
  config = study.get_config('tiny')
  config.budget = settings.default().budget
  config.budget.update(limits)
  return config


def test_what_is_none_has_no_limit() -> None:
  assert budget.limits(tiny()) == {}
  config = tiny(bytes=100, accuracy_drop=0.0)
  assert budget.limits(config) == {'bytes': 100, 'accuracy_drop': 0.0}
  assert budget.limits(budget.without(config)) == {}
  assert budget.limits(ConfigDict({'task': 'study'})) == {}  # an earlier one


def test_flags_set_limits_and_take_them_away() -> None:
  flags = ('--config.budget.bytes=None', '--config.budget.latency_ms=0.05')
  config = loading.load('configs/budget.py:tiny', flags)
  assert budget.limits(config) == {'latency_ms': 0.05}


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('bytes=small', "budget.bytes: expected a value like 3000, got 'small'"),
    ('macs=1.5', 'budget.macs: expected a whole number, or None, got'),
    ('byte=3000', "Nearest: 'bytes'"),
    ('byte=None', "Nearest: 'bytes'"),
  ],
)
def test_flags_that_are_no_limits_are_errors(flag: str, said: str) -> None:
  with pytest.raises(ValueError, match=said) as raised:
    loading.load('configs/budget.py:tiny', (f'--config.budget.{flag}',))
  assert len(errors.line(raised.value)) <= errors.LIMIT


def test_only_a_drop_of_accuracy_asks_for_the_smallest() -> None:
  assert budget.wants_smallest(tiny(accuracy_drop=0.01))
  assert not budget.wants_smallest(tiny(accuracy_drop=0.01, bytes=100))
  drops = stages.first(tiny(accuracy_drop=0.01))
  assert drops.search.objectives == ('val_accuracy', 'bytes')


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('budget.bytes', 0, 'budget.bytes: expected more than 0, or None, got 0'),
    ('budget.bytes', 'few', 'budget.bytes: expected a number, or None'),
    ('budget.macs', True, 'budget.macs: expected a number, or None'),
    ('budget.accuracy_drop', 1.0, r'accuracy_drop: expected a fraction in \['),
    ('budget.energy_uj', float('nan'), 'energy_uj: expected a number'),
    ('budget.byte', 3, "Nearest: 'bytes'"),
    ('task', 'compress', "config.task: expected 'study', which searches withi"),
    ('search.batch_size', 4, 'batch_size: expected 1 within a budget'),
    ('search.designer', 'gp+median', 'one without a pruner in a budget'),
    ('search.network', 'studnt', "Nearest: 'student'"),
    ('train.lr', search.log(1e-3, 1e-2), 'expected ranges in config.networks'),
    ('recipes', {}, 'config.recipes: expected one that varies'),
    ('recipes.mix.train_teacher', True, 'no other network of the config'),
    ('search.enqueue.a', 3, 'enqueue.a: expected fields of the config'),
    ('search.enqueue.a', {'nets': {'x': 1}}, "Nearest: 'networks'"),
    (
      'search.enqueue.a',
      {'networks': {'student': {'sizes': {'width': 99}}}},
      r'sizes.width: expected an integer in \[3, 6\], got 99',
    ),
  ],
)
def test_invalid_values_are_errors(path: str, value: Any, said: str) -> None:
  config = tiny(bytes=3000)
  put(config, path, value)
  with pytest.raises(ValueError, match=said) as raised:
    validate.check(config)
  assert len(errors.line(raised.value)) <= errors.LIMIT


def test_a_drop_is_from_a_reference() -> None:
  config = tiny(accuracy_drop=0.01)
  config.networks.student.of = ''
  with pytest.raises(ValueError, match=r'student.of: expected a reference'):
    validate.check(config)


def test_a_field_that_is_fixed_may_be_enqueued() -> None:
  config = tiny(bytes=3000)
  config.networks.student.sizes.width = 5
  validate.check(config)


def test_within_a_budget_there_is_one_stage() -> None:
  config = tiny(bytes=3000)
  (joint,) = stages.of(config)
  varying = {path.split('.')[0] for path, _ in spaces.varying(joint)}
  assert varying == {'networks', 'recipes'}
  assert len(stages.of(tiny())) == 2


def test_references_and_teachers_are_trained_before() -> None:
  beside = stages.beside(tiny(bytes=3000))
  assert (beside.task, [*beside.networks]) == ('train', ['reference'])
  validate.check(beside)


def test_other_studies_take_a_budget_too() -> None:
  flags = ('--config.budget.bytes=10000', '--config.budget.macs=200000')
  validate.check(loading.load('configs/study.py:small', flags))
