"""The best network inside a budget: one number in, one small network out.

  python main.py --config=configs/budget.py --config.budget.bytes=10000
  python main.py --config=configs/budget.py:small --config.budget.bytes=3000
  python main.py --config=configs/budget.py:few \\
    --config.dataset.name=mine.npz --config.budget.bytes=1000

On Fashion-MNIST, some hours on 2 cores; ':small' is for thousands of examples,
by default the digits, and ':few' for hundreds: minutes. Architecture, training
and recipe are searched for together; the best two are trained in full with 3
seeds, and the better one is exported. The first trials are small networks that
are good elsewhere.
"""

from typing import Any

from ml_collections import ConfigDict

import search
from tsukiji import settings

CUT, GRID = 'recipes.mix.parts.cut', 'recipes.mix.parts.grid'
RISE = 'schedule=cubic(0.0, 0.6)'
PARTS = {
  'weights': f'prune.weights({{sparsity}}, scope="global", {RISE})',
  'filters': 'prune.filters(macs={macs}, multiple=1, score="taylor")',
  'lowrank': 'lowrank.auto(macs={macs})',
  'lsq': 'quantize.lsq({bits}, 8)',
  'int8': 'quantize.int8()',
  'shared': 'share.kmeans(16)',
  'teacher': 'distill.kd({temperature}, {weight})',
}
# Tried before all others: networks of few bits, which lead the small files of
# results/distillation.json. Sizes that differ from these, and bits of weights.
RATE = {'lr': 8e-3}  # the best for such networks there
PLAIN: dict[str, Any] = {
  'width': 8,
  'growth': 2.0,
  'stages': 3,
  'blocks': 0,
  'block': 'plain',
  'kernel': 3,
  'stride': 1,
  'head': 'mean',
  'hidden': 0,
  'dropout': 0.0,
}
FIRST: dict[str, tuple[dict[str, Any], int]] = {
  'narrow_4bit': ({}, 4),
  'flat_4bit': ({'stages': 2, 'kernel': 5, 'head': 'flat'}, 4),
  'thin_4bit': ({'width': 4}, 4),
  'wide_2bit': ({'width': 16}, 2),
  'depthwise_4bit': ({'width': 16, 'block': 'depthwise'}, 4),
  'residual_4bit': ({'width': 6, 'block': 'residual'}, 4),
  'deep_4bit': ({'growth': 1.5, 'blocks': 1, 'block': 'residual'}, 4),
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':small', ':few' for small data, ':tiny' for tests."""
  config = settings.default('study')
  config.title = 'The best network within a budget'
  config.budget.bytes = 10_000
  config.dataset.update(name='fashion_mnist', validation=5000)
  config.seeds = (0, 1, 2)
  common = {'augment': ('flip',), 'lr': 2e-3}
  config.train = settings.training(epochs=16, **common)
  config.finetune = settings.training(epochs=16, **common)
  config.networks = {
    'reference': settings.network('tsukijinet2021', recipes=()),
    'student': student(),
  }
  config.recipes.mix = mix()
  config.search = settings.searching(
    network='student', trials=60, epochs=3, keep=2
  )
  config.recipe_search = settings.searching(epochs=3)
  config.search.limits.macs = 4_100_000  # what is larger trains for too long
  config.search.enqueue = {
    name: {
      'networks': {'student': {'sizes': {**PLAIN, **sizes}, 'train': RATE}},
      'recipes': {
        'mix': {
          'train': RATE,
          'parts': {'cut': '', 'grid': '{lsq}', 'bits': bits, 'teach': ''},
        }
      },
    }
    for name, (sizes, bits) in FIRST.items()
  }
  config.measure.engines = settings.ENGINES
  if arg in ('small', 'few', 'tiny'):
    _small(config)
  if arg == 'few':
    _few(config)
  if arg == 'tiny':
    _tiny(config)
  return config


def student() -> ConfigDict:
  """Return the networks that are searched: 0.3 to 300 thousand parameters."""
  item = settings.network('student', role='searched', of='reference')
  sizes = item.sizes
  sizes.width = search.integer(3, 32, log=True)
  sizes.growth = search.choice(1.0, 1.5, 2.0)
  sizes.stages = search.integer(1, 4)
  sizes.blocks = search.integer(0, 2)
  sizes.block = search.choice('plain', 'residual', 'depthwise')
  sizes.kernel = search.choice(3, 5)
  sizes.stride = search.integer(1, 2)
  sizes.head = search.choice('mean', 'flat')
  sizes.hidden = search.choice(0, 16, 32, 64)
  sizes.dropout = search.float(0.0, 0.3)
  item.train.lr = search.log(1e-3, 3e-2)
  item.train.label_smoothing = search.float(0.0, 0.2)
  return item


def mix() -> ConfigDict:
  """Return the recipes that are searched."""
  item = settings.compression('', 'combined', mode='qat', dropout=0.0)
  item.method, item.float_bits = '{cut} >> {grid} >> {teach}', 8
  item.teacher = ('reference',)
  item.parts = PARTS
  parts, taught = item.parts, {'recipes.mix.parts.teach': '{teacher}'}
  parts.cut = search.choice('', '{weights}', '{filters}', '{lowrank}')
  parts.grid = search.choice('{lsq}', '{int8}', '{shared}')
  parts.teach = search.choice('', '{teacher}')
  parts.sparsity = search.float(0.3, 0.95, when={CUT: '{weights}'})
  parts.macs = search.float(0.3, 0.9, when={CUT: ('{filters}', '{lowrank}')})
  parts.bits = search.integer(2, 8, when={GRID: '{lsq}'})
  parts.temperature = search.log(1.0, 8.0, when=taught)
  parts.weight = search.float(0.3, 0.9, when=taught)
  item.train.lr = search.log(5e-4, 1e-2)
  return item


def _small(config: ConfigDict) -> None:
  """Make it fit small data, by default the digits."""
  config.dataset.update(name='digits', validation=0.2)
  for training in (config.train, config.finetune):
    training.update(batch_size=32, augment=(), epochs=30)
  # A width says it too, and takes less time than to find what hangs together.
  config.recipes.mix.parts.cut = search.choice('', '{weights}')
  config.recipes.mix.parts.macs = 0.5
  config.search.update(trials=24, epochs=6)
  config.search.limits.macs = 1_000_000
  config.recipe_search.epochs = 6


def _few(config: ConfigDict) -> None:
  """Make it fit hundreds of examples, as rows of a table."""
  config.dataset.validation = 0.25
  for training in (config.train, config.finetune):
    training.update(batch_size=8, epochs=40)
  config.search.epochs = config.recipe_search.epochs = 10


def _tiny(config: ConfigDict) -> None:
  """Make it run in seconds: few parameters, two trials."""
  config.seeds = (0,)
  config.budget.bytes = 3000
  config.train.update(epochs=1, batch_size=64)
  config.finetune.update(epochs=1, batch_size=64)
  reference = config.networks.reference
  reference.sizes = {'conv': (4, 8), 'hidden': (16,)}
  item = settings.network('student', role='searched', of='reference')
  item.sizes.width = search.integer(3, 6)
  config.networks.student = item
  mixed = settings.compression('{grid} >> {teach}', 'combined', mode='qat')
  mixed.teacher, mixed.parts = ('reference',), PARTS
  mixed.parts.update(temperature=4.0, weight=0.5, bits=4)
  mixed.parts.grid = search.choice('{lsq}', '{int8}')
  mixed.parts.teach = '{teacher}'
  config.recipes.mix = mixed
  narrow = {'student': {'sizes': {'width': 4}}}
  config.search.enqueue = {
    name: {
      'networks': narrow,
      'recipes': {'mix': {'parts': {'grid': f'{{{name}}}'}}},
    }
    for name in ('lsq', 'int8')
  }
  config.search.update(trials=2, epochs=1, workers=1)
  config.recipe_search.epochs = 1
  config.measure.update(repeats=5, engines=('jax',))
