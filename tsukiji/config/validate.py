"""Checks of a config before anything is started."""

import re
from typing import Any

from ml_collections import ConfigDict

from compress import recipe
from tsukiji.config import search_space, settings, validate_search
from tsukiji.config.kinds import (
  expect_alike,
  expect_fields,
  expect_least,
  expect_once,
  expect_seeds,
)
from tsukiji.data import batches
from tsukiji.deploy.passes.round_floats import WIDEST
from tsukiji.errors import expect, expect_name
from tsukiji.models import compact_filters, zoo
from tsukiji.training import losses, teacher


def check(config: ConfigDict) -> None:
  """Check a config.

  Args:
    config: The result of a config file, with overrides applied.

  Raises:
    ValueError: If a field is unknown (the message gives the nearest), or a
      value or an end of a range is not valid.
  """
  examples = search_space.examples(config)
  for example in examples:
    _check(example)
  _check_asked(examples)
  validate_search.check(config)


def _check(config: ConfigDict) -> None:
  """Check a config without ranges."""
  expect_fields('config', config, settings.default())
  expect_name('config.task', config.task, settings.TASKS)
  expect_seeds('config.seeds', config.seeds)
  expect_least('config.workers', config.workers, 0)
  _check_cluster(config.cluster)
  expect_least('config.measure.repeats', config.measure.repeats, 1)
  expect_least(
    'config.measure.batches', min(config.measure.batches, default=0), 1
  )
  engines = config.measure.engines
  expect('config.measure.engines', engines, 'an engine', engines)
  for name in engines:
    expect_name('config.measure.engines', name, settings.ENGINES)
  _check_export(config.export)
  fix = "Add config.networks.NAME = settings.network('tsukijinet')."
  expect('config.networks', config.networks, 'a network', 'none', fix)
  _check_training('config.train', config.train)
  _check_training('config.finetune', config.finetune, 0)
  for name in config.networks:
    _check_network(name, config)
  for name in config.recipes:
    _check_recipe(name, config)
  for name, item in config.networks.items():
    for seed in item.seeds or config.seeds:
      _check_order(config, name, seed)
      _check_reference(config, name, seed)
      _check_taught(config, name, seed)
  for name, item in config.figures.items():
    _check_figure(f'config.figures.{name}', item, config)
  recipe.parse(config.helper)
  goals = [losses.LOSSES[config[x].loss].goal for x in ('train', 'finetune')]
  same = goals[0] == goals[1]
  expect('config.finetune.loss', same, f'one for {goals[0]}', goals[1])
  fix = 'Methods change the network until the end of the run; set epochs.'
  patience = config.finetune.patience
  expect('config.finetune.patience', not patience, '0', patience, fix)


def _check_cluster(chosen: ConfigDict) -> None:
  expect_name('config.cluster.kind', chosen.kind, settings.CLUSTERS)
  right = bool(chosen.address) == (chosen.kind == 'address')
  what = 'tcp://host:8786 of a scheduler' if chosen.kind == 'address' else "''"
  fix = '' if right or not chosen.address else 'Set cluster.kind=address.'
  expect('config.cluster.address', right, what, chosen.address, fix)
  right = not chosen.options or chosen.kind in ('slurm', 'sge', 'pbs')
  fix = 'They are for cluster.kind slurm, sge and pbs.'
  expect('config.cluster.options', right, 'none', [*chosen.options], fix)


def _check_network(name: str, config: ConfigDict) -> None:
  where, item = f'config.networks.{name}', config.networks[name]
  _check_item(where, name, item, settings.network(''), config)
  if ':' not in item.kind:
    expect_name(f'{where}.kind', item.kind, zoo.NETWORKS)
  expect_name(f'{where}.role', item.role, settings.ROLES)
  if item.of:
    expect_name(f'{where}.of', item.of, config.networks)
  expect_least(f'{where}.epochs', item.epochs, -1)
  _check_own(where, item.train, {'loss'})
  _check_training(f'{where}.train', settings.training_of(config, name))
  expect_least(f'{where}.outputs', item.outputs, 0)
  for wanted in item.recipes:
    if wanted != '*':
      expect_name(f'{where}.recipes', wanted, config.recipes)


def _check_recipe(name: str, config: ConfigDict) -> None:
  where, item = f'config.recipes.{name}', config.recipes[name]
  _check_item(where, name, item, settings.compression('', ''), config)
  expect(where, name != 'dense', 'another name', name, "It is the network's.")
  expect_name(f'{where}.role', item.role, settings.RECIPE_ROLES)
  expect_least(f'{where}.epochs', item.epochs, -1)
  expect_least(f'{where}.lr', item.lr, 0)
  expect_least(f'{where}.drop_layers', item.drop_layers, 0)
  right = type(item.float_bits) is int and 0 <= item.float_bits <= WIDEST
  what = f'bits from 1 to {WIDEST}, or 0 for all'
  expect(f'{where}.float_bits', right, what, item.float_bits)
  right = item.freeze_bn_at == -1 or 0 <= item.freeze_bn_at <= 1
  what = 'a number in [0, 1], or -1'
  expect(f'{where}.freeze_bn_at', right, what, item.freeze_bn_at)
  for field in ('dropout', 'label_smoothing'):
    right = item[field] == -1 or 0 <= item[field] < 1
    what = 'a number in [0, 1), or -1'
    expect(f'{where}.{field}', right, what, item[field])
  expect_name(f'{where}.compact', item.compact, ('', *compact_filters.KINDS))
  _check_own(where, item.train, {'loss', 'patience'})
  _check_training(f'{where}.train', settings.finetuning_of(config, name), 0)
  _check_start(where, name, config)
  recipe.parse(recipe.filled(item.method, item.parts))
  expect_least(f'{where}.label_weight', item.label_weight, 0)
  _check_teachers(where, item, config)


def _check_own(where: str, own: Any, shared: set[str]) -> None:
  """Check overridden fields of training."""
  right = isinstance(own, ConfigDict)
  expect(f'{where}.train', right, 'fields of config.train', own)
  for name in own:
    expect_name(f'{where}.train', name, {*settings.training()} - shared)


def _check_figure(where: str, item: ConfigDict, config: ConfigDict) -> None:
  expect_fields(where, item, settings.figure('', '', {}))
  expect_name(f'{where}.x', item.x, settings.AXES)
  for _, pattern in item.lines:
    _expect_match(f'{where}.lines', pattern, config)


def _check_item(
  where: str, name: str, item: Any, known: ConfigDict, config: ConfigDict
) -> None:
  """Check what networks and recipes share."""
  # Names become those of files, joined by '-'.
  plain = re.fullmatch(r'\w+', name)
  expect(where, plain, 'a name of letters, digits and _', name)
  expect_fields(where, item, known)
  expect_once(f'{where}.seeds', item.seeds)
  for seed in item.seeds:
    known_seed = seed in config.seeds
    expect(f'{where}.seeds', known_seed, f'some of {config.seeds}', item.seeds)


def _check_start(where: str, name: str, config: ConfigDict) -> None:
  """Check that a recipe does not start from itself, directly or indirectly."""
  start, visited = config.recipes[name].start, [name]
  while start not in settings.STARTS:
    expect_name(f'{where}.start', start, (*settings.STARTS, *config.recipes))
    fix = 'A recipe starts from one that does not start from it.'
    expect(f'{where}.start', start not in visited, 'no circle', visited, fix)
    visited.append(start)
    start = config.recipes[start].start


def _check_order(config: ConfigDict, network: str, seed: int) -> None:
  """Check that the recipes of a network include those they start from."""
  have = settings.recipes_of(config, network, seed)
  for name in have:
    start = config.recipes[name].start
    right = start in settings.STARTS or start in have
    where = f'config.networks.{network}.recipes'
    expect(where, right, f'{start}, which {name} starts from', have)


def _check_reference(config: ConfigDict, network: str, seed: int) -> None:
  """Check that there is a dense row to compare the others with."""
  item = config.networks[network]
  if not item.dense and not settings.recipes_of(config, network, seed):
    return
  of = item.of or network
  reference, where = config.networks[of], f'config.networks.{of}'
  what = f'True, since rows of {network} are compared with it'
  expect(f'{where}.dense', reference.dense, what, reference.dense)
  seeds = reference.seeds or config.seeds
  what = f'{seed}, since {network} is compared with it'
  expect(f'{where}.seeds', seed in seeds, what, seeds)


def _check_export(config: ConfigDict) -> None:
  expect('config.export.formats', config.formats, 'a format', config.formats)
  for name in config.formats:
    expect_name('config.export.formats', name, settings.FORMATS)
  for name in ('flash', 'ram'):
    expect_least(f'config.export.{name}', config[name], 0)


def _check_asked(examples: list[ConfigDict]) -> None:
  """Check that a recipe with a teacher has a method that requires it."""
  for name, item in examples[0].recipes.items():
    methods = [_method_of(example, name) for example in examples]
    required = any(recipe.parse(method).requires for method in methods)
    what = 'no teacher, since the method requires none'
    fix = "Add a method of distill, as '>> distill.kd(4.0)'."
    where = f'config.recipes.{name}.teacher'
    expect(where, required or not item.teacher, what, item.teacher, fix)


def _method_of(config: ConfigDict, name: str) -> str:
  item = config.recipes[name]
  helper = config.helper if item.use_helper else ''
  text = recipe.filled(item.method, item.parts)
  return ' >> '.join(filter(None, (text, helper)))


def _check_teachers(where: str, item: ConfigDict, config: ConfigDict) -> None:
  for name in item.teacher:
    if not teacher.is_outside(name):
      expect_name(f'{where}.teacher', name, config.networks)
      fix = f'Set config.networks.{name}.dense = True.'
      dense = config.networks[name].dense
      expect(f'{where}.teacher', dense, 'a network with a row', name, fix)
  single = len(item.teacher) == 1 and not teacher.is_outside(item.teacher[0])
  what = 'the name of one network as teacher'
  fix = 'It is trained jointly.'
  expect(
    f'{where}.train_teacher',
    single or not item.train_teacher,
    what,
    item.teacher,
    fix,
  )


def _check_taught(config: ConfigDict, network: str, seed: int) -> None:
  """Check that teachers are trained with the seeds of their students."""
  for name in settings.recipes_of(config, network, seed):
    for other in filter(config.networks.get, config.recipes[name].teacher):
      seeds = config.networks[other].seeds or config.seeds
      where = f'config.networks.{other}.seeds'
      expect(where, seed in seeds, f'{seed}, since it teaches {name}', seeds)


def _expect_match(where: str, pattern: str, config: ConfigDict) -> None:
  """Check that a regular expression matches some 'network/recipe'."""
  names = [
    f'{network}/{recipe}'
    for network, item in config.networks.items()
    for recipe in ('dense', *config.recipes)
    if recipe == 'dense' or {'*', recipe} & {*item.recipes}
  ]
  try:
    found = any(re.fullmatch(pattern, name) for name in names)
  except re.error as e:
    fix = f'{e}.'.capitalize()
    expect(where, False, 'a regular expression', pattern, fix)
  expect(where, found, f'a pattern of some of {", ".join(names)}', pattern)


def _check_training(where: str, chosen: ConfigDict, epochs: int = 1) -> None:
  for name, known in settings.training().items():
    expect_alike(f'{where}.{name}', chosen[name], known)
  for name in ('batch_size', 'lr'):
    expect(f'{where}.{name}', chosen[name] > 0, 'more than 0', chosen[name])
  for name in ('weight_decay', 'clip', 'patience'):
    expect_least(f'{where}.{name}', chosen[name], 0)
  expect_least(f'{where}.epochs', chosen.epochs, epochs)
  for name in ('warmup', 'momentum', 'label_smoothing'):
    value = chosen[name]
    expect(f'{where}.{name}', 0 <= value < 1, 'a number in [0, 1)', value)
  right = 0 <= chosen.freeze_bn_at <= 1
  expect(
    f'{where}.freeze_bn_at', right, 'a number in [0, 1]', chosen.freeze_bn_at
  )
  expect_name(f'{where}.optimizer', chosen.optimizer, ('adamw', 'sgd'))
  expect_name(f'{where}.schedule', chosen.schedule, ('constant', 'cosine'))
  expect_name(f'{where}.loss', chosen.loss, losses.LOSSES)
  for kind in chosen.augment:
    expect_name(f'{where}.augment', kind, batches.AUGMENTATIONS)
