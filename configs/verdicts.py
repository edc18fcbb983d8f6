"""Methods that lose in short runs, on a network and with the time of papers.

  python main.py --config=configs/verdicts.py --workdir=runs/verdicts

L0 gates, movement, learning-compression, ADMM and learned ranks are behind
their direct alternatives after two epochs. Are they worse, or do they need
more time? LeNet-300-100, the network of Louizos+ 2018 and Carreira-Perpinan &
Idelbayev 2017, on Fashion-MNIST, three seeds, with 2, 8 and 32 epochs: the
papers have 200, and 30 rounds of a few epochs. Half an hour on 2 cores.
"""

from ml_collections import ConfigDict

from tsukiji import settings

EPOCHS = (2, 8, 32)
RISE = 'schedule=cubic(0.0, 0.7)'
ZEROS = 'prune.weights(0.9, scope="global"'
# By family and name; the first of a family is the direct alternative.
METHODS = {
  'prune': {
    'zeros_gradual': f'{ZEROS}, {RISE})',
    'zeros_l0': 'prune.l0(0.3, sparsity=0.9)',
    'zeros_movement': f'prune.movement(0.9, {RISE})',
    'zeros_lc': f'lc({ZEROS}))',
    'zeros_admm': f'admm({ZEROS}))',
  },
  'share': {
    'values2_direct': 'share.kmeans(2)',
    'values2_lc': 'lc(share.kmeans(2))',
    'values2_admm': 'admm(share.kmeans(2))',
  },
  'lowrank': {
    'ranks_auto': 'lowrank.auto(macs=0.14)',
    'ranks_learned': 'lowrank.learned_rank(4.0, of="macs")',
  },
}
LC = ('_lc', '_admm', '_learned')
TITLES = {
  'zeros': '90 % zeros',
  'values2': 'Two values a layer',
  'ranks': 'Ranks by one budget, or learned',
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Do they need more epochs?', finetune=2)
  config.networks = {'lenet_300_100': settings.network('lenet_300_100')}
  config.recipes = {
    f'{name}_{epochs}': settings.compression(
      text,
      family,
      mode='lc' if name.endswith(LC) else 'finetune',
      epochs=epochs,
      dropout=0.0,
      label_smoothing=0.0,
    )
    for family, methods in METHODS.items()
    for name, text in methods.items()
    for epochs in EPOCHS
  }
  config.figures = {
    name: settings.figure(
      title,
      'epochs',
      {
        found.removeprefix(f'{name}_'): f'lenet_300_100/{found}_.*'
        for methods in METHODS.values()
        for found in methods
        if found.startswith(name)
      },
    )
    for name, title in TITLES.items()
  }
  return _tiny(config) if arg == 'tiny' else config


def _tiny(config: ConfigDict) -> ConfigDict:
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = 1
  config.figures = {}
  few = ('zeros_l0_2', 'values2_lc_2', 'ranks_learned_2')
  config.recipes = {name: config.recipes[name] for name in few}
  for item in config.recipes.values():
    item.epochs = 1
  config.measure.repeats = 5
  return config
