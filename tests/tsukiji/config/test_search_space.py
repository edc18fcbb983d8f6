"""Configs of which fields vary: their samples, and defaults."""

from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

import search
from search import space as spaces
from tsukiji.config import search_space, settings, validate


def varied() -> ConfigDict:
  """Return a config with conditions in each place where they may stand."""
  config = settings.default('search')
  config.networks = {'net': settings.network('tsukijinet2021')}
  net, sgd = config.networks.net, {'train.optimizer': 'sgd'}
  config.train.optimizer = search.choice('adamw', 'sgd')
  config.train.momentum = search.float(0.5, 0.99, when=sgd)
  config.train.clip = search.log(0.1, 1.0, when={'train.momentum': 0.6})
  net.sizes.kernel = search.integer(2, 5, when=sgd)
  net.train.warmup = search.float(0.0, 0.5, when=sgd)
  net.epochs = search.integer(3, 4, when=sgd)
  return config


def put(config: ConfigDict, path: str, value: Any) -> None:
  """Put anything at a dotted path of a config, of whatever type."""
  folder, _, last = path.rpartition('.')
  owner = spaces.at(config, folder) if folder else config
  with config.unlocked(), config.ignore_type():
    owner[last] = value


def test_what_does_not_vary_is_its_own_example() -> None:
  config = settings.default()
  assert not search_space.varies(config)
  assert search_space.examples(config) == [config]


def test_every_option_and_both_ends_occur_among_examples() -> None:
  found = search_space.examples(varied())
  assert {c.train.optimizer for c in found} == {'adamw', 'sgd'}
  assert {0.5, 0.99} <= {c.train.momentum for c in found}
  kernels = [c.networks.net.sizes.get('kernel') for c in found]
  assert {2, 5} <= {*kernels}
  assert not any(map(search_space.varies, found))


def test_what_is_not_active_has_its_default() -> None:
  config = varied()
  space = spaces.of(config)
  unit = np.full(len(space.names), 0.5)
  unit[space.names.index('train.optimizer')] = 0.25
  complete = search_space.with_defaults(space, spaces.to_config(space, unit))
  net = complete.networks.net
  assert complete.train.optimizer == 'adamw'
  assert complete.train.momentum == settings.training().momentum
  assert (complete.train.clip, net.epochs) == (0.0, -1)
  assert 'kernel' not in net.sizes and 'warmup' not in net.train
  complete.task = 'compress'  # nothing is left to search for
  validate.check(complete)


def test_a_part_of_a_method_that_is_not_active_is_empty() -> None:
  config = settings.default('study')
  config.recipes.mix = settings.compression('{a} >> {b}', 'combined')
  parts = config.recipes.mix.parts
  parts.a = search.choice('', 'quantize.int8()')
  parts.b = search.choice('x', 'y', when={'recipes.mix.parts.a': ''})
  wholes = search_space.examples(config)
  assert {c.recipes.mix.parts.b for c in wholes} == {'', 'x', 'y'}


@pytest.mark.parametrize(
  ('path', 'leaf', 'said'),
  [
    ('train.optimizer', search.choice('adamw', 'sdg'), "'sdg'"),
    ('train.lr', search.float(-1.0, 1.0), 'config.train.lr: expected more tha'),
    (
      'train.loss',
      search.choice('squared_hinge', 'cross_entropy'),
      'ranges in',
    ),
    ('finetune.lr', search.log(0.1, 1.0), 'ranges in config.train or'),
    ('seeds', search.choice((0,), (1,)), 'config.seeds: expected ranges in'),
    ('networks.other.epochs', search.integer(1, 2), 'config.networks.net'),
    (
      'train.momentum',
      search.float(0.0, 0.9, when={'train.optimser': 'sgd'}),
      'condition on a field',
    ),
    ('search.trials', 0, 'search.trials: expected at least 1, got 0'),
    ('search.designer', 'pg', "Nearest: 'gp'"),
    ('search.baselines', ('rendom',), "Nearest: 'random'"),
    ('search.network', 'nat', "Nearest: 'net'"),
    ('search.objectives', ('val_acuracy',), "Nearest: 'val_accuracy'"),
    ('search.objectives', ('bytes', 'val_accuracy'), 'val_accuracy first'),
    ('search.seeds', (), 'search.seeds: expected whole numbers'),
    ('search.limits.macs', -1, 'limits.macs: expected at least 0'),
    ('search.limts', 1, "Nearest: 'limits'"),
    ('networks.net.train.lrr', 1.0, "Nearest: 'lr'"),
    ('networks.net.train.loss', 'squared_hinge', 'net.train: expected one of'),
    ('networks.net.train.lr', 'fast', 'train.lr: expected a value like 0.002'),
    ('task', 'compress', 'config: expected a value for each of networks.net'),
  ],
)
def test_invalid_values_are_errors_before_anything_runs(
  path: str, leaf: object, said: str
) -> None:
  config = varied()
  config.networks.other = settings.network('tsukijinet')
  put(config, path, leaf)
  with pytest.raises(ValueError, match=said):
    validate.check(config)


def test_a_search_needs_something_to_vary() -> None:
  config = settings.default('search')
  config.networks = {'net': settings.network('tsukijinet2021')}
  with pytest.raises(ValueError, match='expected a field that varies'):
    validate.check(config)


def test_a_network_may_be_trained_by_settings_of_its_own() -> None:
  config = settings.default()
  config.networks = {
    'a': settings.network('tsukijinet', train={'lr': 0.5, 'epochs': 3}),
    'b': settings.network('tsukijinet', epochs=4),
  }
  validate.check(config)
  own, other = (settings.training_of(config, name) for name in 'ab')
  assert (own.lr, own.epochs, own.batch_size) == (0.5, 3, 128)
  assert (other.lr, other.epochs) == (config.train.lr, 4)


def test_a_recipe_may_be_trained_by_settings_of_its_own() -> None:
  config = settings.default()
  config.networks = {'a': settings.network('tsukijinet')}
  own = {'augment': ('shift',), 'lr': 0.5}
  config.recipes = {
    'a': settings.compression('', 'distill', train=own),
    'b': settings.compression('', 'distill', train=own, lr=0.1, epochs=0),
  }
  validate.check(config)
  first, second = (settings.finetuning_of(config, name) for name in 'ab')
  assert (first.lr, first.augment) == (0.5, ('shift',))
  assert first.epochs == config.finetune.epochs
  assert (second.lr, second.epochs, second.augment) == (0.1, 0, ('shift',))
  assert config.finetune.augment == ()


@pytest.mark.parametrize(
  ('own', 'said'),
  [
    ({'agment': ()}, "recipes.a.train: .*'agment'. Nearest: 'augment'"),
    ({'augment': ('flop',)}, "recipes.a.train.augment: .* Nearest: 'flip'"),
    ({'patience': 2}, "recipes.a.train: .*'patience'"),
    ({'momentum': 1.0}, r'recipes.a.train.momentum: .* \[0, 1\)'),
  ],
)
def test_a_recipe_may_not_be_trained_by(own: dict[str, Any], said: str) -> None:
  config = settings.default()
  config.networks = {'a': settings.network('tsukijinet')}
  config.recipes = {'a': settings.compression('', 'distill', train=own)}
  with pytest.raises(ValueError, match=said):
    validate.check(config)
