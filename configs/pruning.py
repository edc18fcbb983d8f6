"""Pruning of weights and filters on Fashion-MNIST.

  python main.py --config=configs/pruning.py --workdir=runs/pruning

Rows ending in _2 have the budget of the published toolkits, 2 epochs of
fine-tuning; the others have 12. Nothing here is tuned yet, and there are no
results of it beyond those of ':tiny'.
"""

from ml_collections import ConfigDict

from tsukiji import settings

GRADUAL = 'schedule=cubic(0.0, 0.5)'


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.default()
  config.title = 'Pruning on Fashion-MNIST'
  config.dataset.name = 'fashion_mnist'
  config.dataset.validation = 5000
  config.seeds = (0, 1, 2)
  config.networks = {'tsukijinet2021': settings.network('tsukijinet2021')}
  common = {'lr': 2e-3, 'augment': ('flip',), 'label_smoothing': 0.1}
  config.train = settings.training(epochs=16, **common)
  config.finetune = settings.training(epochs=12, **common)
  config.recipes = _weights() | _filters()
  if arg == 'tiny':
    config.dataset.name, config.dataset.validation = 'digits', 0.1
    config.seeds = (0,)
    config.train.epochs = config.finetune.epochs = 1
    config.networks.tsukijinet2021.sizes = {'conv': (4, 8), 'hidden': (16,)}
    config.recipes = {
      name: config.recipes[name] for name in ('weights95_2', 'filters50_2')
    }
    for item in config.recipes.values():
      item.epochs = 1
      item.method = item.method.replace('multiple=8', 'multiple=1')
    config.measure.repeats = 5
  return config


def _weights() -> dict[str, ConfigDict]:
  """Return the recipes that prune single weights."""
  found = {}
  for amount in (0.8, 0.9, 0.95, 0.98):
    name = f'weights{round(100 * amount)}'
    text = f'prune.weights({amount}, scope="global", {GRADUAL})'
    found[f'{name}_2'] = settings.compression(text, 'prune', epochs=2)
    if amount > 0.9:
      found[name] = settings.compression(text, 'prune')
  return found


def _filters() -> dict[str, ConfigDict]:
  """Return the recipes that remove whole channels."""
  found = {}
  for part in (0.5, 0.3, 0.1):
    name = f'filters{round(100 * part)}'
    text = f'prune.filters(macs={part}, multiple=8) >> distill.logits(4.0)'
    for suffix, epochs in (('_2', 2), ('', 12)):
      found[name + suffix] = settings.compression(
        text, 'channels', epochs=epochs
      )
  return found
