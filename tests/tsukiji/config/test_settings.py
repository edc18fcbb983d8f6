"""What a config may be, and what is said of one that may not."""

import importlib
import json
import math
import pathlib
from typing import Any

import pytest
from ml_collections import ConfigDict

from compress import recipe
from tsukiji import errors
from tsukiji.config import settings, validate

CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parents[3] / 'configs').glob('*.py')
  if path.stem != '__init__'
)


def valid() -> ConfigDict:
  """Return a config that uses every field."""
  config = settings.default()
  config.networks = {
    'big': settings.network('tsukijinet', sizes={'kernel': 3}),
    'tiny': settings.network(
      'small', role='control_scratch', of='big', recipes=('int8',), seeds=(1,)
    ),
  }
  config.seeds = (0, 1)
  config.recipes = {
    'int8': settings.compression('quantize.int8()', 'quantize', mode='ptq'),
    'prune': settings.compression('prune.weights(0.5)', 'prune', seeds=(0,)),
    'chance': settings.compression(
      'prune.weights(0.5, score="random")', 'prune', role='control_random'
    ),
  }
  config.figures = {
    'a': settings.figure('A', 'kept', {'b': 'big/prune|tiny/dense'})
  }
  return config


@pytest.mark.parametrize('arg', ['', 'tiny'])
@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_file_is_valid(name: str, arg: str) -> None:
  config = importlib.import_module(f'configs.{name}').get_config(arg)
  validate.check(config)
  plain = settings.plain(config)
  assert json.loads(json.dumps(plain)) == plain


def test_every_method_has_a_row_of_its_own() -> None:
  recipes = importlib.import_module('configs.methods').get_config().recipes
  made = ('admm', 'binary', 'lc', 'lowrank', 'prune', 'quantize')
  made += ('regularize', 'share', 'structured')
  wanted = {x.replace('.', '_') for x in recipe.TABLE if x.startswith(made)}
  assert {*recipes} == wanted


def test_what_uses_every_field_is_valid() -> None:
  config = valid()
  config.train.update(patience=3, clip=0.5, augment=('flip', 'shift'))
  config.finetune.update(epochs=0, optimizer='sgd', schedule='constant')
  validate.check(config)


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    ('task', 'trian', "config.task: .* got 'trian'. Nearest: 'train'"),
    ('seeds', (), 'config.seeds: expected whole numbers from 0'),
    ('seeds', (0, -1), r'config.seeds: .* got \(0, -1\)'),
    ('seeds', (0, 0), r'config.seeds: expected each once, got \(0, 0\)'),
    ('seeds', ('a',), r"config.seeds: expected a value like .*'a'"),
    ('seeds', (1.5,), r'config.seeds: expected a value like .*1.5'),
    ('seeds', (True,), r'config.seeds: expected a value like .*True'),
    ('seeds', (10**20,), 'config.seeds: expected whole numbers from 0 below'),
    ('networks.tiny.seeds', (1, 1), 'tiny.seeds: expected each once'),
    ('search.seeds', (2, 2), 'search.seeds: expected each once'),
    ('workers', None, 'config.workers: expected a value like 0, got None'),
    ('networks', None, 'config.networks: expected settings, got None'),
    ('title', None, "config.title: expected a value like '', got None"),
    ('networks.big.kind', None, "big.kind: expected a value like '', got None"),
    ('networks.big.recipes', (1,), 'big.recipes: expected a value like'),
    ('recipes.int8.method', None, "int8.method: expected a value like ''"),
    ('recipes.int8.dropout', 1.5, r'dropout: .* \[0, 1\), or -1, got 1.5'),
    ('recipes.int8.dropout', -0.5, r'dropout: .* \[0, 1\), or -1, got -0.5'),
    ('recipes.int8.dropout', math.nan, 'dropout: expected a value .* got nan'),
    ('recipes.int8.label_smoothing', math.nan, 'smoothing: .* got nan'),
    ('recipes.int8.label_smoothing', 1.5, 'smoothing: .* or -1, got 1.5'),
    ('train.lr', math.inf, 'config.train.lr: expected a value .* got inf'),
    ('train.patience', True, 'patience: expected a value like 0, got True'),
    ('recipes.int8.teacher', ('big',), 'teacher: expected no teacher, since'),
    ('networks.big.dense', False, 'networks.big.dense: expected True, since'),
    ('networks.big.seeds', (0,), 'big.seeds: expected 1, since tiny is comp'),
    ('measure.batches', ('a',), "measure.batches: expected a value .*'a'"),
    ('workers', -1, 'config.workers: expected at least 0, got -1'),
    ('cluster.kind', 'slrum', "config.cluster.kind: .* Nearest: 'slurm'"),
    ('cluster.kind', 'address', 'cluster.address: expected tcp://host:8786'),
    ('cluster.address', 'tcp://a:1', "'tcp://a:1'. Set cluster.kind=address"),
    ('cluster.options', ConfigDict({'a': 1}), 'options: expected none, got'),
    ('measure.repeats', 0, 'config.measure.repeats: expected at least 1'),
    ('measure.batches', (1, 0), 'config.measure.batches: expected at least 1'),
    ('measure.batches', (), 'config.measure.batches: expected at least 1'),
    ('measure.engines', (), 'config.measure.engines: expected an engine'),
    ('measure.engines', ('jx',), "measure.engines: .* Nearest: 'jax'"),
    ('networks.big.kind', 'tsukijnet', "big.kind: .*Nearest: 'tsukijinet'"),
    ('networks.big.role', 'refrence', "big.role: .*Nearest: 'reference'"),
    ('networks.tiny.of', 'bog', "networks.tiny.of: .* 'bog'. Nearest: 'big'"),
    ('networks.tiny.recipes', ('int', '*'), "recipes: .* Nearest: 'int8'"),
    ('networks.tiny.seeds', (1, 2), r'tiny.seeds: expected some of \(0, 1\)'),
    ('recipes.int8.role', 'reference', 'recipes.int8.role: expected one of co'),
    ('recipes.int8.epochs', -2, 'recipes.int8.epochs: expected at least -1'),
    ('recipes.int8.lr', -0.1, 'recipes.int8.lr: expected at least 0'),
    ('recipes.int8.float_bits', 25, 'float_bits: expected bits from 1 to 24'),
    (
      'recipes.int8.freeze_bn_at',
      1.5,
      r'int8.freeze_bn_at: .* \[0, 1\], or -1, got 1.5',
    ),
    (
      'recipes.int8.freeze_bn_at',
      -0.5,
      r'int8.freeze_bn_at: .* \[0, 1\], or -1',
    ),
    ('recipes.int8.start', 'prone', "int8.start: .*Nearest: 'prune'"),
    ('recipes.int8.start', 'int8', r'int8.start: expected no circle'),
    ('recipes.int8.start', 'prune', 'big.recipes: .*prune, which int8 starts'),
    ('figures.a.x', 'bits', 'figures.a.x: expected one of course, epochs, '),
    ('figures.a.lines', (('b', 'big/in8'),), "a.lines: .*, got 'big/in8'"),
    ('figures.a.lines', (('b', '('),), 'a.lines: expected a regular expr'),
    ('networks.big.epochs', -2, 'networks.big.epochs: expected at least -1'),
    ('recipes.int8.seeds', (3,), r'int8.seeds: .* got \(3,\)'),
    ('recipes.int8.method', 'quantize.int9()', "Nearest: 'quantize.int8'"),
    ('recipes.int8.method', 'prune.weights(1.5)', r'sparsity in \[0, 1\)'),
    ('train.batch_size', 0, 'config.train.batch_size: expected more than 0'),
    ('train.lr', 0.0, 'config.train.lr: expected more than 0, got 0.0'),
    ('finetune.lr', float('nan'), 'config.finetune.lr: .* got nan'),
    ('train.epochs', 0, 'config.train.epochs: expected at least 1, got 0'),
    ('finetune.epochs', -1, 'config.finetune.epochs: expected at least 0'),
    ('train.warmup', 1.0, r'config.train.warmup: .* \[0, 1\), got 1.0'),
    ('train.momentum', -0.1, r'config.train.momentum: .* \[0, 1\)'),
    ('finetune.freeze_bn_at', 2.0, r'freeze_bn_at: .* \[0, 1\]'),
    ('train.label_smoothing', 2.0, r'label_smoothing: .* \[0, 1\)'),
    ('train.weight_decay', -1.0, 'weight_decay: expected at least 0'),
    ('train.clip', -1.0, 'config.train.clip: expected at least 0'),
    ('train.patience', -1, 'config.train.patience: expected at least 0'),
    ('finetune.patience', 2, 'config.finetune.patience: expected 0, got 2'),
    ('train.optimizer', 'adam', "optimizer: .* Nearest: 'adamw'"),
    ('train.loss', 'hinge', "train.loss: .* Nearest: 'squared_hinge'"),
    ('finetune.schedule', 'cosin', "schedule: .* Nearest: 'cosine'"),
    ('train.augment', ('flop',), "config.train.augment: .* Nearest: 'flip'"),
  ],
)
def test_a_value_that_cannot_work(path: str, value: Any, said: str) -> None:
  config = valid()
  with config.ignore_type(), config.train.ignore_type():
    config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=said) as raised:
    validate.check(config)
  assert len(str(raised.value)) <= errors.LIMIT


def test_networks_that_are_a_list() -> None:
  config = ConfigDict({**valid().to_dict(), 'networks': ['tsukijinet']})
  with pytest.raises(ValueError, match='config.networks: expected settings'):
    validate.check(config)


def test_a_network_without_rows_needs_no_reference() -> None:
  config = valid()
  config.networks.tiny.update(dense=False, recipes=(), seeds=(), of='')
  validate.check(config)


@pytest.mark.parametrize(
  ('path', 'near'),
  [
    ('sedes', 'seeds'),
    ('dataset.nam', 'name'),
    ('measure.repeat', 'repeats'),
    ('train.epoch', 'epochs'),
    ('finetune.rl', 'lr'),
    ('networks.big.size', 'sizes'),
    ('recipes.int8.epoch', 'epochs'),
  ],
)
def test_an_unknown_field_gets_the_nearest(path: str, near: str) -> None:
  *above, name = path.split('.')
  config = inner = valid()
  for key in above:
    inner = inner[key]
  inner[name] = 1
  where = '.'.join(['config', *above])
  with pytest.raises(
    ValueError, match=f"^{where}: .*'{name}'. Nearest: '{near}'"
  ):
    validate.check(config)


@pytest.mark.parametrize(
  'path', ['task', 'dataset.name', 'train.lr', 'networks.big.of']
)
def test_a_missing_field(path: str) -> None:
  *above, name = path.split('.')
  config = inner = valid()
  for key in above:
    inner = inner[key]
  del inner[name]
  with pytest.raises(ValueError, match=f"expected a field '{name}'.*Build"):
    validate.check(config)


def test_no_networks() -> None:
  with pytest.raises(ValueError, match='networks: expected a network.* Add'):
    validate.check(settings.default())


@pytest.mark.parametrize('kind', ['networks', 'recipes'])
def test_an_item_that_is_no_settings(kind: str) -> None:
  config = valid()
  config[kind]['odd'] = 'tsukijinet'
  with pytest.raises(ValueError, match=f'config.{kind}.odd: expected settings'):
    validate.check(config)


@pytest.mark.parametrize(
  ('kind', 'name', 'said'),
  [
    ('networks', 'a/b', 'letters, digits and _'),
    ('recipes', 'a-b', 'letters, digits and _'),
    ('recipes', 'dense', 'another name'),
  ],
)
def test_names_are_those_of_files(kind: str, name: str, said: str) -> None:
  config = valid()
  config[kind][name] = next(iter(config[kind].values()))
  with pytest.raises(ValueError, match=f'config.{kind}.{name}: .*{said}'):
    validate.check(config)


@pytest.mark.parametrize(
  'make', [settings.training, lambda **x: settings.network('small', **x)]
)
def test_makers_know_their_fields(make: Any) -> None:
  with pytest.raises(ValueError, match="settings: .* got 'epohcs'"):
    make(epohcs=3)


def test_plain_is_the_same_whatever_the_path() -> None:
  written, overridden = valid(), valid()
  written.train.lr, written.seeds = 1e-3, (0, 1, 2)
  overridden.update_from_flattened_dict(
    {'train.lr': 0.001, 'seeds': (0, 1, 2), 'dataset.validation': 0.1}
  )
  assert settings.plain(written) == settings.plain(overridden)
  assert settings.plain(written) != settings.plain(valid())
  again = ConfigDict(json.loads(json.dumps(settings.plain(written))))
  assert settings.plain(again) == settings.plain(written)


def test_plain_is_json_types_only() -> None:
  def types(x: Any) -> set[type]:
    inner = x.values() if isinstance(x, dict) else x if type(x) is list else ()
    return {type(x)}.union(*map(types, inner))

  known = {dict, list, str, int, float, bool, type(None)}
  assert types(settings.plain(valid())) <= known


@pytest.mark.parametrize(
  ('task', 'network', 'seed', 'expected'),
  [
    ('compress', 'big', 0, ('chance', 'int8', 'prune')),
    ('compress', 'big', 1, ('chance', 'int8')),
    ('compress', 'tiny', 1, ('int8',)),
    ('train', 'big', 0, ()),
  ],
)
def test_recipes_of(
  task: str, network: str, seed: int, expected: tuple[str, ...]
) -> None:
  config = valid()
  config.task = task
  assert settings.recipes_of(config, network, seed) == expected
