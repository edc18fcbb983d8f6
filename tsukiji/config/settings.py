"""The config: every field with its unit."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from search.parameter import Leaf
from tsukiji.config.fields import (
  Experiment,
  Network,
  Part,
  Recipe,
  Search,
  Training,
)
from tsukiji.errors import expect_name

TASKS = (
  'train',
  'compress',
  'search',
  'study',
  'evaluate',
  'export',
  'bench',
  'report',
  'publish',
)
FORMATS = ('c', 'onnx', 'stablehlo')
ENGINES = ('jax', 'onnxruntime', 'openvino', 'c')
ROLES = ('reference', 'control_scratch', 'searched')
RECIPE_ROLES = ('compressed', 'control_random', 'control_scratch')
# What a figure is drawn along; see `figure`.
AXES = ('course', 'epochs', 'kept', 'macs', 'size', 'units', 'width')
# Where a recipe may start, other than from another recipe: the trained network,
# the same with its norms folded into its weights, or new weights.
STARTS = ('dense', 'folded', 'fresh')
CLUSTERS = ('local', 'address', 'slurm', 'sge', 'pbs')
DESIGNERS = ('gp', 'grid', 'random', 'sobol')
PRUNERS = ('halving', 'hyperband', 'median')  # `search.pruning`
# What is known of a config before it is trained, and what is found after.
KNOWN = ('bytes', 'macs', 'params')
FOUND = ('latency_ms', 'energy_uj', 'flash', 'ram')
OBJECTIVES = ('val_accuracy', *KNOWN, *FOUND)
# What a budget may limit; see `budget.limits`.
COSTS = (*KNOWN, *FOUND)


def training(**changes: Any) -> ConfigDict:
  """Return the settings of a training run."""
  defaults = Training(
    {
      'epochs': 12,
      'batch_size': 128,  # examples, over all devices
      'optimizer': 'adamw',  # or 'sgd' (Nesterov)
      'lr': 2e-3,  # the largest learning rate
      'schedule': 'cosine',  # or 'constant'
      'warmup': 0.0,  # fraction of the run
      'momentum': 0.9,  # the first of Adam's, or Nesterov's
      'weight_decay': 1e-2,  # of weights; never of biases, norms or scales
      'clip': 0.0,  # largest norm of the gradient; 0 for any
      'loss': 'cross_entropy',  # or 'squared_hinge'
      'label_smoothing': 0.0,  # share of the label given to all classes
      # Part of the run from which statistics of batch norms are kept fixed.
      'freeze_bn_at': 1.0,
      'augment': (),  # any of 'flip', 'shift'
      'patience': 0,  # epochs without a better validation; 0 trains to the end
    }
  )
  return _changed(defaults, changes)


def network(kind: str, **changes: Any) -> ConfigDict:
  """Return the settings of one network of an experiment."""
  defaults = Network(
    {
      'kind': kind,  # in tsukiji.models.zoo, or 'package.module:function'
      'sizes': {},  # arguments of the zoo's function
      'role': 'reference',  # one of ROLES
      'of': '',  # the reference of a control
      'recipes': ('*',),  # names in `recipes`; '*' is all of them
      'train': {},  # fields of its own in place of those of config.train
      'epochs': -1,  # of training; -1 takes train.epochs
      'dense': True,  # whether the uncompressed network gets a row
      'seeds': (),  # its own, where fewer than all are enough
      'outputs': 0,  # numbers it gives, as of an embedding; 0 for the data's
    }
  )
  return _changed(defaults, changes)


def compression(method: str, family: str, **changes: Any) -> ConfigDict:
  """Return the settings of one recipe of an experiment."""
  defaults = Recipe(
    {
      'method': method,  # an expression over compress.recipe.TABLE
      'parts': {},  # of {names} in the method; see compress.recipe.filled
      'family': family,  # for tables: prune, quantize, combined, ...
      'mode': 'finetune',  # for tables: ptq, qat, one_shot, finetune, ...
      'role': 'compressed',  # or 'control_random'
      'epochs': -1,  # of fine-tuning; -1 takes finetune.epochs
      'lr': 0.0,  # of fine-tuning; 0 takes finetune.lr
      'label_smoothing': -1.0,  # of fine-tuning; -1 takes that of finetune
      'dropout': -1.0,  # rate of fine-tuning; -1 keeps the network's
      'freeze_bn_at': -1.0,  # -1 takes finetune.freeze_bn_at
      'train': {},  # other fields of its own in place of those of finetune
      'seeds': (),  # its own, where fewer than all are enough
      'start': 'dense',  # one of STARTS, or a recipe
      'drop_layers': 0,  # units to remove, those that add least (`readings`)
      'drop_named': (),  # units to remove, by name (`drop_layers.units`)
      'compact': '',  # small filters for large ones (`compact.KINDS`)
      # Networks, files *.tsk or 'package.module:function'; () for its own
      # dense network. Several are an ensemble.
      'teacher': (),
      'train_teacher': False,  # with the student, from scratch
      'label_weight': 1.0,  # of the task's loss; that of the method has 1
      'use_helper': True,  # whether config.helper joins the method
      'float_bits': 0,  # of scales, biases and other floats in the file; 0: 24
    }
  )
  return _changed(defaults, changes)


def searching(**changes: Any) -> ConfigDict:
  """Return the settings of a search over what varies in a config."""
  defaults = Search(
    {
      'designer': 'gp',  # one of DESIGNERS, or with one of PRUNERS: 'gp+median'
      'baselines': (),  # other designers that search as well
      'seeds': (0,),  # a study each, of every designer
      'trials': 40,  # of a study
      'network': '',  # the one that a trial trains; '' is the first
      'epochs': 2,  # of a trial; the best gets those of the network. 0: as many
      'min_epochs': 1,  # before which no trial is pruned
      'eta': 3,  # one of so many goes on to so many times the epochs
      'per_second': False,  # whether `gp` likes short trials better
      'objectives': ('val_accuracy',),  # some of OBJECTIVES
      'limits': dict.fromkeys(KNOWN, 0),  # of a network; 0 for none
      'storage': '',  # URL or file *.log; '' is study.db in the workdir
      'workers': 0,  # processes or jobs; 0 takes config.workers
      # Trials of one task: those whose networks have the same shapes are one
      # program, where that is faster (`vmapped`).
      'batch_size': 1,
      # Of what was found, the number that is trained in full: recipes of the
      # Pareto set, or networks within a budget.
      'keep': 6,
      'enqueue': {},  # name -> fields that vary: trials before all others
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
  return Experiment(
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
      'search': searching(),
      'recipe_search': searching(),  # of a study, where a recipe varies
      # Of the best network of a study, which is then searched for with its
      # training and its recipe at once; None is no limit.
      'budget': {
        'bytes': placeholder(int),  # of the packed file
        'latency_ms': placeholder(float),  # median at batch 1, fastest engine
        'energy_uj': placeholder(float),  # modeled, of an inference
        'params': placeholder(int),  # numbers in the file
        'macs': placeholder(int),  # of an example
        'flash': placeholder(int),  # bytes for the constants of its C file
        'ram': placeholder(int),  # bytes of memory that the C file takes
        # From the reference: alone, the smallest file is the best.
        'accuracy_drop': placeholder(float),
      },
      'helper': '',  # joins every recipe, as 'distill.kd(4.0)'
      'figures': {},  # name -> figure(...)
      'seeds': (0,),
      'workers': 0,  # processes or jobs; 0 is one a core on CPU, else one
      'cluster': {
        'kind': 'local',  # or 'address', 'slurm', 'sge', 'pbs'
        'address': '',  # of a Dask scheduler, as tcp://host:8786
        'options': {},  # of a job, as dask-jobqueue takes them
        'dashboard': '',  # address of Dask's own for local workers, as ':8787'
      },
      'distributed': False,  # call jax.distributed.initialize()
      'measure': {
        'batches': (1, 64),  # examples a call
        'repeats': 100,  # samples a batch size
        'engines': ('jax',),  # of ENGINES; each network runs in its fastest
      },
      'export': {
        'formats': ('onnx', 'stablehlo'),  # of FORMATS
        'flash': 0,  # bytes for the constants of a C file; 0 is any number
        'ram': 0,  # bytes for its scratch memory, stack, input and output
      },
    }
  )


def fashion_mnist(title: str, finetune: int) -> ConfigDict:
  """Return what the studies on Fashion-MNIST have in common.

  Args:
    title: Heads the report.
    finetune: Epochs of a recipe that does not say how many.

  Returns:
    The config: 5000 images for validation, three seeds, 16 epochs.
  """
  config = default()
  config.title = title
  config.dataset.update(name='fashion_mnist', validation=5000)
  config.seeds = (0, 1, 2)
  common = {'lr': 2e-3, 'augment': ('flip',), 'label_smoothing': 0.1}
  config.train = training(epochs=16, **common)
  config.finetune = training(epochs=finetune, **common)
  return config


def _changed(config: Part, changes: Mapping[str, Any]) -> ConfigDict:
  for name, value in changes.items():
    known = (*config, *config.RENAMED, *config.DROPPED)
    expect_name('settings', name, known)
    config[name] = value
  return config


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return the config as JSON types, the same whatever the path to it."""
  return {name: _plain(value) for name, value in sorted(config.items())}


def _plain(value: Any) -> Any:
  if isinstance(value, Leaf):
    return _plain(dataclasses.asdict(value))
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, ConfigDict):
    return plain(value)
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  return value


def recipes_of(config: ConfigDict, name: str, seed: int) -> tuple[str, ...]:
  """Return the recipes that a network gets with a seed, in order."""
  if config.task in ('train', 'search'):
    return ()
  wanted = config.networks[name].recipes
  return tuple(
    key
    for key, item in config.recipes.items()
    if ('*' in wanted or key in wanted) and seed in (item.seeds or (seed,))
  )


def training_of(config: ConfigDict, name: str) -> ConfigDict:
  """Return the settings of the training of a network itself."""
  item = config.networks[name]
  return _own(config.train, item, epochs=item.epochs >= 0)


def finetuning_of(config: ConfigDict, name: str) -> ConfigDict:
  """Return the settings of the training under a recipe."""
  item = config.recipes[name]
  return _own(
    config.finetune,
    item,
    epochs=item.epochs >= 0,
    lr=item.lr > 0,
    label_smoothing=item.label_smoothing >= 0,
    freeze_bn_at=item.freeze_bn_at >= 0,
  )


def _own(common: ConfigDict, item: ConfigDict, **said: bool) -> ConfigDict:
  """Return settings with those in their place that an item says itself."""
  chosen = common.copy_and_resolve_references()
  with chosen.ignore_type():  # `check` says it better
    chosen.update(item.train.copy_and_resolve_references())
  for name in (name for name, own in said.items() if own):
    chosen[name] = item[name]
  return chosen


def searched(config: ConfigDict) -> str:
  """Return the network that a trial of a search trains."""
  return config.search.network or next(iter(config.networks))
