"""A full study: baselines, searches, compression of the best network, report.

  make study        # on Fashion-MNIST, some 3 hours on 2 cores
  make study-small  # the same shape on digits, minutes

Tsukijinet and Tsukijinet2021 as they are; random search and a Gaussian process
over what the notes leave open; the best by validation trained in full, with 3
seeds, and compressed by every family; then a search over which methods, in
which order, how strong and with a teacher or not, of which a Pareto set is
trained in full. Compression and speed-up rates are against Tsukijinet2021.
"""

from typing import Any

from ml_collections import ConfigDict

import search
from configs.search import vary
from tsukiji import settings

TEACH = 'distill.kd(4.0)'  # the uncompressed winner teaches
SPARSE = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 4e-3}
RISE = 'schedule=cubic(0.0, 0.6)'
PRUNED = f'prune.weights({{}}, scope="global", {RISE})'
HALVED = 'prune.filters(macs=0.5, multiple=4, score="taylor", scope="auto")'
RECIPES: dict[str, tuple[str, str, dict[str, Any]]] = {
  'int8': ('quantize.int8()', 'quantize', {'epochs': 1, 'mode': 'qat'}),
  'w4a4': ('quantize.lsq(4, 4)', 'quantize', {'epochs': 3, 'mode': 'qat'}),
  'w2a2': ('quantize.lsq(2, 2)', 'quantize', {'mode': 'qat'}),
  'binary': ('binary.weights()', 'binary', {'mode': 'qat'}),
  'prune90': (PRUNED.format(0.9), 'prune', SPARSE),
  'prune95': (PRUNED.format(0.95), 'prune', SPARSE),
  'filters50': (HALVED, 'channels', SPARSE),
  'lowrank50': ('lowrank.auto(macs=0.5)', 'lowrank', {}),
  'shared16': ('share.kmeans(16)', 'share', {'epochs': 3}),
  'prune90_int8': (
    f'{PRUNED.format(0.9)} >> quantize.int8()',
    'combined',
    {**SPARSE, 'mode': 'qat'},
  ),
  'filters50_w4a4': (
    f'{HALVED} >> quantize.lsq(4, 4)',
    'combined',
    {**SPARSE, 'mode': 'qat'},
  ),
}


# Recipes of the second search: placeholders in braces are replaced.
CUTS = {
  'weights': f'prune.weights({{sparsity}}, scope="global", {RISE})',
  'filters': HALVED.replace('0.5', '{macs}'),
  'lowrank': 'lowrank.auto(macs={macs})',
}
GRIDS = {
  'lsq': 'quantize.lsq({bits}, {bits})',
  'int8': 'quantize.int8()',
  'shared': 'share.kmeans(16)',
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':small' and ':tiny' are the same shape on digits."""
  config = settings.default('study')
  config.title = 'The plan on Fashion-MNIST'
  config.dataset.name = 'fashion_mnist'
  config.dataset.validation = 5000
  config.seeds = (0, 1, 2)
  config.networks = {
    'tsukijinet2021': settings.network('tsukijinet2021', recipes=()),
    'tsukijinet': settings.network('tsukijinet', recipes=()),
    'searched': settings.network(
      'tsukijinet2021', role='searched', of='tsukijinet2021'
    ),
  }
  # Of the baselines and of fine-tuning; the winner's own come from the search.
  common = {'lr': 2e-3, 'augment': ('flip',), 'label_smoothing': 0.1}
  config.train = settings.training(epochs=16, **common)
  config.finetune = settings.training(epochs=6, **common)
  searched = config.networks.searched
  vary(searched.train, searched, 'networks.searched.train')
  config.recipes = {
    name: settings.compression(f'{method} >> {TEACH}', family, **changes)
    for name, (method, family, changes) in RECIPES.items()
  }
  config.recipes.mix = mix('recipes.mix')
  config.search = settings.searching(
    network='searched', baselines=('random',), trials=40, epochs=2
  )
  costs = ('bytes', 'latency_ms', 'energy_uj')
  config.recipe_search = settings.searching(
    objectives=('val_accuracy', *costs), trials=24, epochs=2
  )
  config.search.limits.macs = 4_100_000
  if arg in ('small', 'tiny'):
    _digits(config)
  if arg == 'tiny':
    _tiny(config)
  return config


def mix(at: str) -> ConfigDict:
  """Return a recipe with ranges for every setting.

  Args:
    at: Where it is in the config.
  """
  cut, grid = f'{at}.parts.cut', f'{at}.parts.grid'
  item = settings.compression('', 'combined', mode='qat', **SPARSE)
  item.method = '{cut} >> {grid} >> {late} >> {teach}'
  item.parts = {**CUTS, **GRIDS, 'teacher': TEACH}
  parts = item.parts
  parts.cut = search.choice('', *(f'{{{name}}}' for name in CUTS))
  parts.grid = search.choice('', *(f'{{{name}}}' for name in GRIDS))
  parts.late = search.choice('', '{weights}', when={cut: ''})
  parts.teach = search.choice('', '{teacher}')
  parts.sparsity = search.float(0.5, 0.97, when={cut: ('', '{weights}')})
  parts.macs = search.float(0.2, 0.8, when={cut: ('{filters}', '{lowrank}')})
  parts.bits = search.integer(2, 8, when={grid: '{lsq}'})
  return item


def _digits(config: ConfigDict) -> None:
  """Make it the same study on small images."""
  config.title = 'The plan on handwritten digits'
  config.dataset.name, config.dataset.validation = 'digits', 0.2
  config.seeds = (0,)
  for part in (config.train, config.finetune):
    part.update(batch_size=64, augment=(), epochs=8)
  config.train.epochs = 15
  config.networks.searched.train.batch_size = 64
  config.search.update(trials=16, epochs=6)
  config.search.limits.macs = 400_000
  config.recipe_search.update(trials=12, epochs=4)


def _tiny(config: ConfigDict) -> None:
  """Make it run in seconds, with a few parameters and recipes."""
  config.train.epochs = config.finetune.epochs = 1
  sizes = {'conv': (4, 8), 'hidden': (16,)}
  config.networks = {
    'tsukijinet2021': settings.network('tsukijinet2021', recipes=()),
    'searched': config.networks.searched,
  }
  config.networks.tsukijinet2021.sizes = sizes
  own = config.networks.searched
  own.sizes = {**sizes, 'dropout': own.sizes.dropout}
  own.train = {'lr': own.train.lr}
  config.recipes = {name: config.recipes[name] for name in ('int8', 'mix')}
  config.search.update(trials=1, epochs=1, workers=1)
  config.recipes.mix.parts.macs = 0.8
  config.recipe_search.update(trials=2, epochs=1, workers=1, keep=1)
  config.measure.repeats = 5
