"""Checks of a config: what it may not be, told before anything is started."""

import re
from typing import Any

from ml_collections import ConfigDict

from compress import recipe
from search import space as spaces
from tsukiji.config import ranges, settings, stages
from tsukiji.data import batches
from tsukiji.errors import expect, expect_name
from tsukiji.models import compact_filters, zoo
from tsukiji.training import losses, teacher


def check(config: ConfigDict) -> None:
  """Refuse a config that cannot run, before anything is started.

  Args:
    config: What a config file returned, with the overrides applied.

  Raises:
    ValueError: If a field is unknown (the message gives the nearest) or has a
      value that cannot work, or may get one where it varies.
  """
  for example in ranges.examples(config):
    _check(example)
  _check_varied(config)
  for name in ('search', 'recipe_search'):
    _check_search(f'config.{name}', config[name], config)


def _check(config: ConfigDict) -> None:
  """Check a config in which nothing varies."""
  _check_fields('config', config, settings.default())
  expect_name('config.task', config.task, settings.TASKS)
  seeds = config.seeds and all(seed >= 0 for seed in config.seeds)
  expect('config.seeds', seeds, 'whole numbers from 0', config.seeds)
  _least('config.workers', config.workers, 0)
  _least('config.measure.repeats', config.measure.repeats, 1)
  _least('config.measure.batches', min(config.measure.batches, default=0), 1)
  engines = config.measure.engines
  expect('config.measure.engines', engines, 'an engine', engines)
  for name in engines:
    expect_name('config.measure.engines', name, settings.ENGINES)
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


def _check_varied(config: ConfigDict) -> None:
  """Check that what varies is what a search looks for."""
  searching = config.task in ('search', 'study')
  names = dict(spaces.varying(config))
  fix = 'Put search.log, choice, integer or float in the place of a value.'
  expect('config', names or not searching, 'a field that varies', 'none', fix)
  running = searching or config.task in ('train', 'compress')
  fix = 'Use config.task=search or study.'
  what = f'a value for each of {", ".join(names)}'
  expect('config', searching or not (names and running), what, 'ranges', fix)
  network = config.search.network or next(iter(config.networks))
  expect_name('config.search.network', network, config.networks)
  mixed = stages.recipe_of(config)
  parts = ['train.', f'networks.{network}.']
  fixed = ['train.loss', f'networks.{network}.outputs']
  if mixed:
    parts.append(f'recipes.{mixed}.')
    fixed += [f'recipes.{mixed}.{name}' for name in ('start', 'train_teacher')]
    if running:
      _check_mixed(f'config.recipes.{mixed}', config.recipes[mixed], config)
  what = f'ranges in {" or ".join(f"config.{part[:-1]}" for part in parts)}'
  for name in names:
    right = name.startswith(tuple(parts)) and name not in fixed
    expect(f'config.{name}', right, what, 'a range', 'A trial trains that.')


def _check_mixed(where: str, item: ConfigDict, config: ConfigDict) -> None:
  """Check a recipe that varies: a trial needs the dense network alone."""
  fix = 'A search trains networks; a study compresses them too.'
  study = config.task == 'study'
  expect(
    'config.task', study, "'study' where a recipe varies", config.task, fix
  )
  fix = 'Let a recipe that does not vary do it.'
  alone = item.start in settings.STARTS
  what = f'one of {", ".join(settings.STARTS)}'
  expect(f'{where}.start', alone, what, item.start, fix)
  outside = (
    all(map(teacher.is_outside, item.teacher)) and not item.train_teacher
  )
  what = 'no other network of the config'
  expect(f'{where}.teacher', outside, what, item.teacher, fix)
  chosen, where = config.recipe_search, 'config.recipe_search'
  for name in (chosen.designer, *chosen.baselines):
    whole = name not in settings.RUNGED
    expect(f'{where}.designer', whole, 'one of whole trials', name)
  expect(f'{where}.batch_size', chosen.batch_size == 1, '1', chosen.batch_size)
  fix = 'What a recipe leaves is an objective.'
  free = not any(chosen.limits.values())
  expect(f'{where}.limits', free, 'no limits', dict(chosen.limits), fix)


def _check_search(where: str, chosen: ConfigDict, config: ConfigDict) -> None:
  if chosen.network:
    expect_name(f'{where}.network', chosen.network, config.networks)
  for name in (chosen.designer, *chosen.baselines):
    expect_name(f'{where}.designer', name, settings.DESIGNERS)
  for name in chosen.objectives:
    expect_name(f'{where}.objectives', name, settings.OBJECTIVES)
  first = chosen.objectives and chosen.objectives[0]
  what = 'val_accuracy first, and each once'
  right = first == 'val_accuracy' and len({*chosen.objectives}) == len(
    chosen.objectives
  )
  expect(f'{where}.objectives', right, what, chosen.objectives)
  seeds = chosen.seeds and all(seed >= 0 for seed in chosen.seeds)
  expect(f'{where}.seeds', seeds, 'whole numbers from 0', chosen.seeds)
  _least(f'{where}.trials', chosen.trials, 1)
  least = {'epochs': 0, 'workers': 0, 'batch_size': 1, 'min_epochs': 1}
  least |= {'eta': 2, 'keep': 1}
  for name, value in least.items():
    _least(f'{where}.{name}', chosen[name], value)
  for name in {chosen.designer, *chosen.baselines} & {*settings.RUNGED}:
    fix = 'What is trained together does not rest and go on.'
    one = chosen.batch_size == 1
    expect(f'{where}.batch_size', one, f'1 for {name}', chosen.batch_size, fix)
    what = (
      f'at least eta * min_epochs ({chosen.eta * chosen.min_epochs}) for {name}'
    )
    enough = chosen.epochs >= chosen.eta * chosen.min_epochs
    expect(f'{where}.epochs', enough, what, chosen.epochs)
  for name, value in chosen.limits.items():
    _least(f'{where}.limits.{name}', value, 0)
  lease = chosen.lease
  expect(f'{where}.lease', lease >= 1, 'at least 1 second', lease)


def _check_network(name: str, config: ConfigDict) -> None:
  where, item = f'config.networks.{name}', config.networks[name]
  _check_item(where, name, item, settings.network(''), config)
  expect_name(f'{where}.kind', item.kind, zoo.NETWORKS)
  expect_name(f'{where}.role', item.role, settings.ROLES)
  if item.of:
    expect_name(f'{where}.of', item.of, config.networks)
  _least(f'{where}.epochs', item.epochs, -1)
  _check_own(where, item.train, {'loss'})
  _check_training(f'{where}.train', settings.training_of(config, name))
  _least(f'{where}.outputs', item.outputs, 0)
  for wanted in item.recipes:
    if wanted != '*':
      expect_name(f'{where}.recipes', wanted, config.recipes)


def _check_recipe(name: str, config: ConfigDict) -> None:
  where, item = f'config.recipes.{name}', config.recipes[name]
  _check_item(where, name, item, settings.compression('', ''), config)
  expect(where, name != 'dense', 'another name', name, "It is the network's.")
  expect_name(f'{where}.role', item.role, settings.RECIPE_ROLES)
  _least(f'{where}.epochs', item.epochs, -1)
  _least(f'{where}.lr', item.lr, 0)
  _least(f'{where}.drop_layers', item.drop_layers, 0)
  right = item.freeze_bn_at == -1 or 0 <= item.freeze_bn_at <= 1
  expect(
    f'{where}.freeze_bn_at',
    right,
    'a number in [0, 1], or -1',
    item.freeze_bn_at,
  )
  expect_name(f'{where}.compact', item.compact, ('', *compact_filters.KINDS))
  _check_own(where, item.train, {'loss', 'patience'})
  _check_training(f'{where}.train', settings.finetuning_of(config, name), 0)
  _check_start(where, name, config)
  recipe.parse(recipe.filled(item.method, item.parts))
  _least(f'{where}.label_weight', item.label_weight, 0)
  _check_teachers(where, item, config)


def _check_own(where: str, own: Any, shared: set[str]) -> None:
  """Check fields of training that stand in place of the config's."""
  right = isinstance(own, ConfigDict)
  expect(f'{where}.train', right, 'fields of config.train', own)
  for name in own:
    expect_name(f'{where}.train', name, {*settings.training()} - shared)


def _check_figure(where: str, item: ConfigDict, config: ConfigDict) -> None:
  _check_fields(where, item, settings.figure('', '', {}))
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
  _check_fields(where, item, known)
  for seed in item.seeds:
    known_seed = seed in config.seeds
    expect(f'{where}.seeds', known_seed, f'some of {config.seeds}', item.seeds)


def _check_start(where: str, name: str, config: ConfigDict) -> None:
  """Check that a recipe starts from what is there before it."""
  start, seen = config.recipes[name].start, [name]
  while start not in settings.STARTS:
    expect_name(f'{where}.start', start, (*settings.STARTS, *config.recipes))
    fix = 'A recipe starts from one that does not start from it.'
    expect(f'{where}.start', start not in seen, 'no circle', seen, fix)
    seen.append(start)
    start = config.recipes[start].start


def _check_order(config: ConfigDict, network: str, seed: int) -> None:
  """Check that what a network's recipes start from is among them."""
  have = settings.recipes_of(config, network, seed)
  for name in have:
    start = config.recipes[name].start
    right = start in settings.STARTS or start in have
    where = f'config.networks.{network}.recipes'
    expect(where, right, f'{start}, which {name} starts from', have)


def _check_teachers(where: str, item: ConfigDict, config: ConfigDict) -> None:
  for name in item.teacher:
    if not teacher.is_outside(name):
      expect_name(f'{where}.teacher', name, config.networks)
      fix = f'Set config.networks.{name}.dense = True.'
      dense = config.networks[name].dense
      expect(f'{where}.teacher', dense, 'a network with a row', name, fix)
  alone = len(item.teacher) == 1 and not teacher.is_outside(item.teacher[0])
  what = 'the name of one network as teacher'
  fix = 'It is trained beside.'
  expect(
    f'{where}.train_teacher',
    alone or not item.train_teacher,
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
  """Expect a regular expression for some 'network/recipe'."""
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
    kinds = (int, float) if isinstance(known, float) else type(known)
    right = isinstance(chosen[name], kinds)
    what = f'a value like {known!r}'
    expect(f'{where}.{name}', right, what, chosen[name])
  for name in ('batch_size', 'lr'):
    expect(f'{where}.{name}', chosen[name] > 0, 'more than 0', chosen[name])
  for name in ('weight_decay', 'clip', 'patience'):
    _least(f'{where}.{name}', chosen[name], 0)
  _least(f'{where}.epochs', chosen.epochs, epochs)
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


def _check_fields(where: str, config: Any, known: ConfigDict) -> None:
  fix = 'Build configs from tsukiji.config.settings.'
  expect(where, isinstance(config, ConfigDict), 'settings', config, fix)
  nested = {'dataset', 'finetune', 'measure', 'train'}
  nested |= {'limits', 'recipe_search', 'search'}
  for name, value in config.items():
    expect_name(where, name, known)
    if name in nested and known[name]:
      _check_fields(f'{where}.{name}', value, known[name])
  for name in known:
    expect(where, name in config, f'a field {name!r}', sorted(config), fix)


def _least(where: str, value: float, least: int) -> None:
  expect(where, value >= least, f'at least {least}', value)
