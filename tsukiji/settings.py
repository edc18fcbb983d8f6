"""The config: every field with its unit, and what a config may not be."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import ConfigDict

from compress import recipe
from tsukiji import batches, losses, zoo
from tsukiji.errors import expect

TASKS = ('train', 'compress', 'evaluate', 'bench', 'report', 'publish')
ROLES = ('reference', 'control_scratch')
RECIPE_ROLES = ('compressed', 'control_random', 'control_scratch')
# What a figure is drawn along; see `figure`.
AXES = ('course', 'epochs', 'kept', 'macs', 'size', 'units', 'width')
# Of a recipe, beside other recipes: the trained network, that with its norms
# in its weights, or new weights.
STARTS = ('dense', 'folded', 'fresh')


def training(**changes: Any) -> ConfigDict:
  """Return the settings of a training run."""
  defaults = ConfigDict(
    {
      'epochs': 12,
      'batch_size': 128,  # examples, over all devices
      'optimiser': 'adamw',  # or 'sgd' (Nesterov)
      'lr': 2e-3,  # the largest learning rate
      'schedule': 'cosine',  # or 'constant'
      'warmup': 0.0,  # fraction of the run
      'momentum': 0.9,  # the first of Adam's, or Nesterov's
      'weight_decay': 1e-2,  # of weights; never of biases, norms or scales
      'clip': 0.0,  # largest norm of the gradient; 0 for any
      'loss': 'cross_entropy',  # or 'squared_hinge'
      'label_smoothing': 0.0,  # share of the label given to all classes
      'settle': 1.0,  # part of the run from which statistics of norms are held
      'augment': (),  # any of 'flip', 'shift'
      'patience': 0,  # epochs without a better validation; 0 trains to the end
    }
  )
  return _changed(defaults, changes)


def network(kind: str, **changes: Any) -> ConfigDict:
  """Return the settings of one network of an experiment."""
  defaults = ConfigDict(
    {
      'kind': kind,  # a name in tsukiji.zoo
      'sizes': {},  # arguments of the zoo's function
      'role': 'reference',  # or 'control_scratch'
      'of': '',  # the reference that a control stands beside
      'recipes': ('*',),  # names in `recipes`; '*' is all of them
      'epochs': -1,  # of training; -1 takes train.epochs
      'dense': True,  # whether the uncompressed network gets a row
      'seeds': (),  # its own, where fewer than all are enough
    }
  )
  return _changed(defaults, changes)


def compression(method: str, family: str, **changes: Any) -> ConfigDict:
  """Return the settings of one recipe of an experiment."""
  defaults = ConfigDict(
    {
      'method': method,  # an expression over compress.recipe.TABLE
      'family': family,  # for tables: prune, quantize, combined, ...
      'mode': 'finetune',  # for tables: ptq, qat, one_shot, finetune, ...
      'role': 'compressed',  # or 'control_random'
      'epochs': -1,  # of fine-tuning; -1 takes finetune.epochs
      'lr': 0.0,  # of fine-tuning; 0 takes finetune.lr
      'label_smoothing': -1.0,  # of fine-tuning; -1 takes that of finetune
      'dropout': -1.0,  # rate of fine-tuning; -1 keeps the network's
      'seeds': (),  # its own, where fewer than all are enough
      'start': 'dense',  # one of STARTS, or a recipe
      'fewer': 0,  # units that go first, those that add least (`readings`)
      'without': (),  # units that go first, by name (`shallow.units`)
    }
  )
  return _changed(defaults, changes)


def figure(title: str, x: str, lines: Mapping[str, str]) -> ConfigDict:
  """Return a figure of the report: accuracy along a cost, a line a label.

  Args:
    title: Of the figure.
    x: The cost, one of `AXES`; along 'course', the epochs of a run, accuracy
      is that on the validation set.
    lines: By label, a regular expression for the 'network/recipe' of its
      points, as 'lenet5/int8'; 'small/dense' is a network itself.

  Returns:
    The settings.
  """
  return ConfigDict({'title': title, 'x': x, 'lines': tuple(lines.items())})


def default(task: str = 'compress') -> ConfigDict:
  """Return an experiment without networks and recipes, for configs to fill.

  Args:
    task: One of `TASKS`.

  Returns:
    The config.
  """
  return ConfigDict(
    {
      'task': task,
      'title': '',  # heads the report
      'dataset': {
        'name': 'digits',  # 'digits', a TFDS name, an IDX folder or an .npz
        'validation': 0.1,  # share or number of the training examples
        'seed': 0,  # of the validation split
        'folder': '',  # data_dir of TFDS; '' for its default
        'cache': '',  # where decoded arrays are kept; '' for ~/.cache/tsukiji
      },
      'networks': {},  # name -> network(...)
      'train': training(),
      'finetune': training(epochs=3, lr=1e-3),
      'recipes': {},  # name -> compression(...)
      'figures': {},  # name -> figure(...)
      'seeds': (0,),
      'workers': 0,  # processes; 0 is one a core on CPU, else one
      'distributed': False,  # call jax.distributed.initialize()
      'measure': {
        'batches': (1, 64),  # examples a call
        'repeats': 100,  # samples a batch size
      },
    }
  )


def _changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
  for name, value in changes.items():
    _expect_name('settings', name, config)
    config[name] = value
  return config


def check(config: ConfigDict) -> None:
  """Refuse a config that cannot run, before anything is started.

  Args:
    config: What a config file returned, with the overrides applied.

  Raises:
    ValueError: If a field is unknown (the message gives the nearest) or has a
      value that cannot work.
  """
  _check_fields('config', config, default())
  _expect_name('config.task', config.task, TASKS)
  seeds = config.seeds and all(seed >= 0 for seed in config.seeds)
  expect('config.seeds', seeds, 'whole numbers from 0', config.seeds)
  _least('config.workers', config.workers, 0)
  _least('config.measure.repeats', config.measure.repeats, 1)
  _least('config.measure.batches', min(config.measure.batches, default=0), 1)
  fix = "Add config.networks.NAME = settings.network('tsukijinet')."
  expect('config.networks', config.networks, 'a network', 'none', fix)
  for name, item in config.networks.items():
    where = f'config.networks.{name}'
    _check_item(where, name, item, network(''), config)
    _expect_name(f'{where}.kind', item.kind, zoo.NETWORKS)
    _expect_name(f'{where}.role', item.role, ROLES)
    if item.of:
      _expect_name(f'{where}.of', item.of, config.networks)
    _least(f'{where}.epochs', item.epochs, -1)
    for wanted in item.recipes:
      if wanted != '*':
        _expect_name(f'{where}.recipes', wanted, config.recipes)
  for name, item in config.recipes.items():
    where = f'config.recipes.{name}'
    _check_item(where, name, item, compression('', ''), config)
    expect(where, name != 'dense', 'another name', name, "It is the network's.")
    _expect_name(f'{where}.role', item.role, RECIPE_ROLES)
    _least(f'{where}.epochs', item.epochs, -1)
    _least(f'{where}.lr', item.lr, 0)
    _least(f'{where}.fewer', item.fewer, 0)
    _check_start(where, name, config)
    recipe.parse(item.method)
  for name, item in config.networks.items():
    for seed in item.seeds or config.seeds:
      _check_order(config, name, seed)
  for name, item in config.figures.items():
    where = f'config.figures.{name}'
    _check_fields(where, item, figure('', '', {}))
    _expect_name(f'{where}.x', item.x, AXES)
    for _, pattern in item.lines:
      _expect_match(f'{where}.lines', pattern, config)
  for name in ('train', 'finetune'):
    _check_training(f'config.{name}', config[name])
  fix = 'Methods change the network until the end of the run; set epochs.'
  patience = config.finetune.patience
  expect('config.finetune.patience', not patience, '0', patience, fix)


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
  while start not in STARTS:
    _expect_name(f'{where}.start', start, (*STARTS, *config.recipes))
    fix = 'A recipe starts from one that does not start from it.'
    expect(f'{where}.start', start not in seen, 'no circle', seen, fix)
    seen.append(start)
    start = config.recipes[start].start


def _check_order(config: ConfigDict, network: str, seed: int) -> None:
  """Check that what a network's recipes start from is among them."""
  have = recipes_of(config, network, seed)
  for name in have:
    start = config.recipes[name].start
    right = start in STARTS or start in have
    where = f'config.networks.{network}.recipes'
    expect(where, right, f'{start}, which {name} starts from', have)


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


def _check_training(where: str, settings: ConfigDict) -> None:
  for name in ('batch_size', 'lr'):
    expect(f'{where}.{name}', settings[name] > 0, 'more than 0', settings[name])
  for name in ('weight_decay', 'clip', 'patience'):
    _least(f'{where}.{name}', settings[name], 0)
  _least(f'{where}.epochs', settings.epochs, int(where == 'config.train'))
  for name in ('warmup', 'momentum', 'label_smoothing'):
    value = settings[name]
    expect(f'{where}.{name}', 0 <= value < 1, 'a number in [0, 1)', value)
  right = 0 <= settings.settle <= 1
  expect(f'{where}.settle', right, 'a number in [0, 1]', settings.settle)
  _expect_name(f'{where}.optimiser', settings.optimiser, ('adamw', 'sgd'))
  _expect_name(f'{where}.schedule', settings.schedule, ('constant', 'cosine'))
  _expect_name(f'{where}.loss', settings.loss, losses.LOSSES)
  for kind in settings.augment:
    _expect_name(f'{where}.augment', kind, batches.AUGMENTATIONS)


def _check_fields(where: str, config: Any, known: ConfigDict) -> None:
  fix = 'Build configs from tsukiji.settings.'
  expect(where, isinstance(config, ConfigDict), 'settings', config, fix)
  for name, value in config.items():
    _expect_name(where, name, known)
    if name in ('dataset', 'measure', 'train', 'finetune'):
      _check_fields(f'{where}.{name}', value, known[name])
  for name in known:
    expect(where, name in config, f'a field {name!r}', sorted(config), fix)


def _expect_name(where: str, name: str, known: Iterable[str]) -> None:
  names = sorted(known)
  near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
  fix = f'Nearest: {near[0]!r}.' if near else ''
  expect(where, name in names, f'one of {", ".join(names)}', name, fix)


def _least(where: str, value: float, least: int) -> None:
  expect(where, value >= least, f'at least {least}', value)


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return the config as JSON types, the same whatever the path to it."""
  return {name: _plain(value) for name, value in sorted(config.items())}


def _plain(value: Any) -> Any:
  if isinstance(value, ConfigDict):
    return plain(value)
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  return value


def recipes_of(config: ConfigDict, name: str, seed: int) -> tuple[str, ...]:
  """Return the recipes that a network gets with a seed, in order."""
  if config.task == 'train':
    return ()
  wanted = config.networks[name].recipes
  return tuple(
    key
    for key, item in config.recipes.items()
    if ('*' in wanted or key in wanted) and seed in (item.seeds or (seed,))
  )
