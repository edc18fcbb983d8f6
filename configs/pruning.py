"""Pruning of weights, filters and layers on Fashion-MNIST.

  python main.py --config=configs/pruning.py --workdir=runs/pruning

Rows that end in _2 have the budget of the published toolkits, 2 epochs of
fine-tuning; the others have 12 unless stated otherwise. About 90 minutes on 2
cores; the results are in results/pruning.json. Choices were made on the
validation set with seed 0.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'  # the dense network is the teacher
# A sparse network underfits: no dropout, larger steps, and no label smoothing
# in addition to the soft labels of the teacher.
SPARSE = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 4e-3}
AMOUNTS = (80, 90, 95, 98)  # % of the weights
KEPT = (20, 10, 5, 2, 1)  # % of the weights of the LeNets
LONG = AMOUNTS[2:]  # with 12 epochs too
PARTS = (50, 30, 10)  # % of the multiplications that remain
RISE = 'schedule=cubic(0.0, 0.7)'
INFLUENCE = 'score="taylor", scope="auto"'
# Sparsities of the layers at 95 %, set by hand: the best of four profiles, in
# the proportions of Han+ 2015 for LeNet-5.
HAND = {
  'conv1/kernel': 0.34,
  'conv2/kernel': 0.88,
  'dense1/kernel': 0.9669,
  'dense2/kernel': 0.81,
}
ONE = {'seeds': (0,)}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Pruning on Fashion-MNIST', finetune=12)
  families = {
    'tsukijinet2021': [
      _weights(),
      _filters(),
      _allocation(),
      _regularized(),
      _methods(),
      _layers(),
    ],
    'lenet5': [_kept()],
    'lenet_300_100': [_kept()],
    'resnet': [_blocks()],
  }
  config.recipes = {
    name: item
    for parts in families.values()
    for part in parts
    for name, item in part.items()
  }
  config.networks = {
    name: settings.network(name, recipes=tuple(k for p in parts for k in p))
    for name, parts in families.items()
  }
  # Twenty layers; at a quarter of the pixels, so that epochs stay short.
  config.networks.resnet.sizes = {'blocks': 3, 'stride': 2}
  config.networks.resnet.update(epochs=8, seeds=(0,))
  config.networks.update(_scratch())
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _weights() -> dict[str, ConfigDict]:
  """Return gradual pruning of single weights, and random masks."""
  found = {}
  for amount in AMOUNTS:
    share = amount / 100
    text = f'prune.auto({share}, sensitivity="signal", {RISE}) >> {TEACH}'
    random = f'prune.weights({share}, score="random") >> {TEACH}'
    for suffix, epochs in (('_2', 2), ('', 12))[: 1 + (amount in LONG)]:
      how = dict(SPARSE, lr=8e-3 if (amount, epochs) == (98, 2) else 4e-3)
      found[f'weights{amount}{suffix}'] = _recipe(text, 'prune', epochs, **how)
      found[f'random{amount}{suffix}'] = _recipe(
        random, 'prune', epochs, role='control_random', **how
      )
  return found


def _filters() -> dict[str, ConfigDict]:
  """Return the removal of filters at once and in stages, and its controls."""
  found = {}
  for part in PARTS:
    # With multiples of 16 a tenth would empty a layer.
    budget = f'macs={part / 100}, multiple={16 if part > 10 else 8}'
    text = f'prune.filters({budget}, {INFLUENCE}) >> {TEACH}'
    random = f'prune.filters({budget}, score="random")'
    for suffix, epochs in (('_2', 2), ('', 12)):
      found[f'filters{part}{suffix}'] = _recipe(
        text, 'channels', epochs, **SPARSE
      )
      found[f'random_filters{part}{suffix}'] = _recipe(
        f'{random} >> {TEACH}',
        'channels',
        epochs,
        role='control_random',
        **SPARSE,
      )
    # The same small network from new weights.
    found[f'fresh_filters{part}'] = _recipe(
      random, 'channels', 12, role='control_scratch', start='fresh'
    )
  staged = found['filters10'].copy_and_resolve_references()
  staged.update(start='filters30', **ONE)
  found['filters10_staged'] = staged
  return found


def _allocation() -> dict[str, ConfigDict]:
  """Return 95 % divided among layers equally, by hand and automatically."""
  texts = {
    'alike': f'prune.weights(0.95, {RISE})',
    'ranked': f'prune.weights(0.95, scope="global", {RISE})',
    'by_hand': f'prune.weights({HAND}, {RISE})',
    'auto_loss': f'prune.auto(0.95, {RISE})',
  }
  return {
    f'weights95_2_{name}': _recipe(f'{text} >> {TEACH}', 'prune', 2, **SPARSE)
    for name, text in texts.items()
  }


def _regularized() -> dict[str, ConfigDict]:
  """Return l1, l2 and gradual pruning to 90 %, by epochs of training."""
  cut = 'prune.weights(0.9, scope="global", schedule=cubic({}))'
  texts = {
    'gradual': cut.format('0.0, 0.7'),
    # Penalty, cut, retraining (Han+ 2015): half of the epochs each.
    'l1': 'regularize.l1(3e-5) >> ' + cut.format('0.5, 0.51'),
    'l2': 'regularize.l2(1e-3) >> ' + cut.format('0.5, 0.51'),
  }
  return {
    f'{name}_{epochs}': _recipe(text, 'prune', epochs)
    for name, text in texts.items()
    for epochs in (1, 2, 4)
  }


def _methods() -> dict[str, ConfigDict]:
  """Return the other methods, with one seed."""
  weights = {
    'l0': 'prune.l0(0.3, sparsity=0.9)',
    'variational': 'prune.variational(1.0, sparsity=0.9)',
    'blocks': f'prune.blocks(0.9, (4, 4), scope="global", {RISE})',
    'two_of_four': f'only("conv2.*|dense.*", prune.n_m(2, 4, {RISE}))',
    'taylor': f'prune.weights(0.9, score="taylor", {RISE})',
    'fisher': 'prune.weights(0.9, score="fisher")',
    'threshold': f'prune.threshold(1.5, {RISE})',
    'movement': 'prune.movement(0.9)',
  }
  found = {
    name: _recipe(f'{text} >> {TEACH}', 'prune', 2, **ONE, **SPARSE)
    for name, text in weights.items()
  }
  # From new weights, for the epochs of the dense network.
  for name, text in (
    ('rigl90', 'prune.rigl(0.9)'),
    ('ticket90', 'prune.lottery_ticket(0.9, scope="global")'),
  ):
    found[name] = _recipe(text, 'prune', 16, start='fresh', **ONE)
  # Without training: by curvature, and by magnitude as the control.
  for name, text in (
    ('obs', 'prune.obs(0.7, scope="global")'),
    ('size', 'prune.weights(0.7, scope="global")'),
  ):
    found[f'{name}70_0'] = _recipe(text, 'prune', 0, mode='one_shot', **ONE)
  scores = {
    'l1': 'macs=0.3, score="l1"',
    'l2': 'macs=0.3',
    'greedy': 'macs=0.3, greedy=True',
    'taylor': 'macs=0.3, score="taylor"',
    'median': 'macs=0.3, score="fpgm"',
    'size': f'size=0.3, {INFLUENCE}',
    'time': f'ms=0.05, {INFLUENCE}',
  }
  for name, text in scores.items():
    found[f'filters30_2_{name}'] = _recipe(
      f'prune.filters({text}) >> {TEACH}',
      'channels',
      2,
      **ONE,
      **SPARSE,
    )
  found['neurons'] = _recipe(
    'prune.neurons(0.5, layers="dense1", multiple=16)',
    'channels',
    0,
    mode='one_shot',
    **ONE,
  )
  return found


def _layers() -> dict[str, ConfigDict]:
  """Return Tsukijinet2021 without its least useful layer."""
  fresh = {'role': 'control_scratch', 'start': 'fresh'}
  return {
    'fewer1': _recipe(TEACH, 'layers', 8, drop_layers=1, **ONE),
    'fresh_fewer1': _recipe('', 'layers', 16, drop_layers=1, **fresh, **ONE),
  }


def _blocks() -> dict[str, ConfigDict]:
  """Return the ResNet without its least useful blocks."""
  fresh = {'role': 'control_scratch', 'start': 'fresh'}
  return {
    'blocks_fewer2': _recipe(TEACH, 'layers', 3, drop_layers=2),
    'blocks_fewer4': _recipe(TEACH, 'layers', 3, drop_layers=4),
    'blocks_fresh_fewer4': _recipe(
      '', 'layers', 8, drop_layers=4, **fresh, **ONE
    ),
  }


def _kept() -> dict[str, ConfigDict]:
  """Return the LeNets with decreasing numbers of weights."""
  found = {}
  for kept in KEPT:
    text = f'prune.auto({1 - kept / 100:g}, sensitivity="signal", {RISE})'
    found[f'kept{kept}'] = _recipe(f'{text} >> {TEACH}', 'prune', 4, **SPARSE)
  return found


def _scratch() -> dict[str, ConfigDict]:
  """Return dense networks with the bytes of those pruned to 80 % and more.

  The narrow ones are Tsukijinet2021 with fewer channels, the small ones a
  better architecture of 3x3 convolutions.
  """

  def control(kind: str, **more: Any) -> ConfigDict:
    return settings.network(
      kind, role='control_scratch', of='tsukijinet2021', recipes=(), **more
    )

  narrow = {
    69: ((16, 40), 80),
    35: ((12, 32), 48),
    18: ((8, 24), 32),
    8: ((6, 16), 20),
  }
  small = {9: (8, 16, 16, 32)}
  found = {
    f'narrow{count}k': control(
      'tsukijinet2021', sizes={'conv': conv, 'hidden': (hidden,)}
    )
    for count, (conv, hidden) in narrow.items()
  }
  found |= {
    f'small{count}k': control('small', sizes={'widths': widths}, **ONE)
    for count, widths in small.items()
  }
  return found


def _figures() -> dict[str, ConfigDict]:
  """Return the figures in addition to those of every report."""
  big = 'tsukijinet2021/'
  return {
    'weights': settings.figure(
      'Single weights pruned',
      'size',
      {
        '12 epochs': rf'{big}weights\d+',
        '2 epochs': rf'{big}weights\d+_2',
        'random mask, 12 epochs': rf'{big}random\d+',
        'random mask, 2 epochs': rf'{big}random\d+_2',
        'narrow from scratch': 'narrow.*/dense',
        'small from scratch': 'small.*/dense',
      },
    ),
    'filters': settings.figure(
      'Filters removed',
      'macs',
      {
        '12 epochs': rf'{big}filters\d+',
        '12 epochs a stage': rf'{big}filters\d+_staged',
        '2 epochs': rf'{big}filters\d+_2',
        'random filters, 12 epochs': rf'{big}random_filters\d+',
        'random filters, 2 epochs': rf'{big}random_filters\d+_2',
        'the same widths from scratch': rf'{big}fresh_filters\d+',
      },
    ),
    'regularised': settings.figure(
      'To 90 % with l1 and l2, and by the gradual schedule',
      'epochs',
      {name: rf'{big}{name}_\d' for name in ('gradual', 'l1', 'l2')},
    ),
    'lenets': settings.figure(
      'LeNets with ever fewer weights',
      'kept',
      {
        'LeNet-5': r'lenet5/kept\d+',
        'LeNet-300-100': r'lenet_300_100/kept\d+',
      },
    ),
    'layers': settings.figure(
      'Layers removed',
      'units',
      {
        'Tsukijinet2021': f'{big}fewer1',
        'Tsukijinet2021, from scratch': f'{big}fresh_fewer1',
        'ResNet': r'resnet/blocks_fewer\d',
        'ResNet, from scratch': r'resnet/blocks_fresh_fewer\d',
      },
    ),
  }


def _recipe(method: str, family: str, epochs: int, **more: Any) -> ConfigDict:
  """Return a recipe that trains for some epochs."""
  return settings.compression(method, family, epochs=epochs, **more)


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with a few of its recipes."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  config.networks = {
    name: config.networks[name] for name in ('tsukijinet2021', 'small9k')
  }
  config.networks.tsukijinet2021.sizes = {'conv': (4, 8), 'hidden': (16,)}
  config.networks.tsukijinet2021.recipes = ('weights95_2', 'filters50_2')
  config.networks.small9k.update(sizes={'widths': (4, 4, 8, 8)}, seeds=(0,))
  config.recipes = {
    name: config.recipes[name] for name in ('weights95_2', 'filters50_2')
  }
  config.figures = {}
  for item in config.recipes.values():
    item.epochs = 1
    item.method = item.method.replace('multiple=16', 'multiple=1')
  config.measure.repeats = 5
  return config
