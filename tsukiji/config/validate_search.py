"""Checks of the varying fields of a config, and of its search."""

from ml_collections import ConfigDict

from search import space as spaces
from search.parameter import expect_inside
from tsukiji.config import budget, search_space, settings, stages
from tsukiji.config.kinds import expect_least, expect_seeds
from tsukiji.errors import expect, expect_name
from tsukiji.training import teacher


def check(config: ConfigDict) -> None:
  """Check a search; see `validate.check`."""
  budget.check(config)
  _check_varied(config)
  _check_enqueued(config)
  for name in ('search', 'recipe_search'):
    _check_search(f'config.{name}', config[name], config)


def _check_varied(config: ConfigDict) -> None:
  """Check that the varying fields are those of a search."""
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
  joint = bool(budget.limits(config))
  parts = ['train.'] * (not joint) + [f'networks.{network}.']
  fixed = ['train.loss', f'networks.{network}.outputs']
  if mixed:
    parts.append(f'recipes.{mixed}.')
    fixed += [f'recipes.{mixed}.{name}' for name in ('start', 'train_teacher')]
    if running:
      _check_mixed(f'config.recipes.{mixed}', config.recipes[mixed], config)
  what = f'ranges in {" or ".join(f"config.{part[:-1]}" for part in parts)}'
  fix = 'Put a range into a part of a recipe, as its bits.'
  got = [*config.recipes]
  expect('config.recipes', mixed or not joint, 'one that varies', got, fix)
  for name in names:
    right = name.startswith(tuple(parts)) and name not in fixed
    expect(f'config.{name}', right, what, 'a range', 'A trial trains that.')


def _check_mixed(where: str, item: ConfigDict, config: ConfigDict) -> None:
  """Check a recipe that varies: it must start from the dense network."""
  fix = 'A search trains networks; a study compresses them too.'
  study = config.task == 'study'
  expect(
    'config.task', study, "'study' where a recipe varies", config.task, fix
  )
  fix = 'Let a recipe that does not vary do it.'
  joint = bool(budget.limits(config))
  valid = item.start in settings.STARTS
  what = f'one of {", ".join(settings.STARTS)}'
  expect(f'{where}.start', valid, what, item.start, fix)
  outside = (
    joint or all(map(teacher.is_outside, item.teacher))
  ) and not item.train_teacher
  what = 'no other network of the config'
  expect(f'{where}.teacher', outside, what, item.teacher, fix)
  if joint:
    return
  chosen, where = config.recipe_search, 'config.recipe_search'
  for name in (chosen.designer, *chosen.baselines):
    expect(f'{where}.designer', '+' not in name, 'one without a pruner', name)
  expect(f'{where}.batch_size', chosen.batch_size == 1, '1', chosen.batch_size)
  fix = 'What a recipe leaves is an objective.'
  unlimited = not any(chosen.limits.values())
  expect(f'{where}.limits', unlimited, 'no limits', dict(chosen.limits), fix)


def _check_enqueued(config: ConfigDict) -> None:
  """Check that trials to begin with have fields and values of the config."""
  leaves = dict(spaces.varying(config))
  for name, fields in config.search.enqueue.items():
    where = f'config.search.enqueue.{name}'
    expect(
      where, isinstance(fields, ConfigDict), 'fields of the config', fields
    )
    for path, value in search_space.flat(fields).items():
      if path in leaves:
        expect_inside(f'{where}.{path}', leaves[path], value)
      else:
        _expect_field(where, path, config)


def _expect_field(where: str, path: str, config: ConfigDict) -> None:
  """Check that a field exists: one that a flag has fixed varies no more."""
  holder = config
  for name in path.split('.'):
    expect_name(where, name, holder, 'a field')
    holder = holder[name]


def _check_search(where: str, chosen: ConfigDict, config: ConfigDict) -> None:
  if chosen.network:
    expect_name(f'{where}.network', chosen.network, config.networks)
  for name in (chosen.designer, *chosen.baselines):
    inner, plus, pruner = name.partition('+')
    expect_name(f'{where}.designer', inner, settings.DESIGNERS)
    if plus:
      expect_name(f'{where}.designer', pruner, settings.PRUNERS, 'a pruner')
  for name in chosen.objectives:
    expect_name(f'{where}.objectives', name, settings.OBJECTIVES)
  first = chosen.objectives and chosen.objectives[0]
  what = 'val_accuracy first, and each once'
  right = first == 'val_accuracy' and len({*chosen.objectives}) == len(
    chosen.objectives
  )
  expect(f'{where}.objectives', right, what, chosen.objectives)
  expect_seeds(f'{where}.seeds', chosen.seeds)
  expect_least(f'{where}.trials', chosen.trials, 1)
  least = {'epochs': 0, 'workers': 0, 'batch_size': 1, 'min_epochs': 1}
  least |= {'eta': 2, 'keep': 1}
  for name, value in least.items():
    expect_least(f'{where}.{name}', chosen[name], value)
  for name in (chosen.designer, *chosen.baselines):
    if '+' in name:
      _check_pruner(where, name, chosen, config)
  for name, value in chosen.limits.items():
    expect_least(f'{where}.limits.{name}', value, 0)


def _check_pruner(
  where: str, name: str, chosen: ConfigDict, config: ConfigDict
) -> None:
  """Check that trials can end early."""
  full = not budget.limits(config)
  expect(f'{where}.designer', full, 'one without a pruner in a budget', name)
  fix = 'A pruner compares errors alone.'
  alone = len(chosen.objectives) == 1
  what = f'one for {name}'
  expect(f'{where}.objectives', alone, what, chosen.objectives, fix)
  fix = 'Trials that are trained as one program cannot end early.'
  one = chosen.batch_size == 1
  expect(f'{where}.batch_size', one, f'1 for {name}', chosen.batch_size, fix)
  most = chosen.eta * chosen.min_epochs
  what = f'at least eta * min_epochs ({most}) for {name}'
  expect(f'{where}.epochs', chosen.epochs >= most, what, chosen.epochs)
