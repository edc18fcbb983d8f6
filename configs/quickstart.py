"""Two networks, three recipes, real digits: everything in two minutes.

  python main.py --config=configs/quickstart.py

Expect 98 to 99 % for both networks and the same within half a point for the
pruned, the 8-bit, and the pruned 8-bit file, which is some 22 times smaller.
"""

from ml_collections import ConfigDict

from tsukiji import settings


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' runs in seconds and learns little."""
  config = settings.default()
  config.title = 'Quickstart: handwritten digits'
  config.networks = {
    name: settings.network(name) for name in ('tsukijinet', 'tsukijinet2021')
  }
  config.train = settings.training(epochs=15, batch_size=64)
  config.finetune = settings.training(epochs=8, batch_size=64, lr=2e-3)
  pruned = 'prune.weights(0.9, scope="global", schedule=cubic(0.0, 0.5))'
  config.recipes = {
    'prune90': settings.compression(pruned, 'prune'),
    'int8': settings.compression('quantize.int8()', 'quantize', mode='qat'),
    'prune90_int8': settings.compression(
      f'{pruned} >> quantize.int8()', 'combined', mode='qat'
    ),
  }
  if arg == 'tiny':
    config.train.epochs = config.finetune.epochs = 1
    config.networks.tsukijinet.sizes = {'conv': (4, 8), 'hidden': (16,)}
    config.networks.tsukijinet2021.sizes = {'conv': (4, 8), 'hidden': (16,)}
    config.measure.repeats = 5
  return config
