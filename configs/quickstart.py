"""Two networks and five recipes on handwritten digits, in a few minutes.

  python main.py --config=configs/quickstart.py

Expect 98 to 99.7 % for both networks, and the same within a point for all five
files: the fastest have half of the multiplications, the smallest has one weight
in ten, in 8 bits.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

# Wide enough that time is spent in kernels, not in calls.
SIZES = {'conv': (64, 128), 'hidden': (256,)}
PRUNED = 'prune.weights(0.9, scope="global", schedule=cubic(0.0, 0.5))'
FILTERS = 'prune.filters(macs=0.5, multiple=16, score="taylor", scope="auto")'


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' runs in seconds and learns little."""
  config = settings.default()
  config.title = 'Quickstart: handwritten digits'
  config.networks = {
    'tsukijinet': settings.network('tsukijinet', sizes=SIZES, recipes=()),
    'tsukijinet2021': settings.network('tsukijinet2021', sizes=SIZES),
  }
  config.train = settings.training(epochs=15, batch_size=64)
  config.finetune = settings.training(epochs=8, batch_size=64, lr=2e-3)
  config.measure.engines = settings.ENGINES
  config.recipes = {
    'int8': _integers(),
    'filters50': settings.compression(FILTERS, 'channels'),
    'filters50_int8': _integers(start='filters50'),
    'prune90': settings.compression(PRUNED, 'prune'),
    'prune90_int8': settings.compression(
      f'{PRUNED} >> quantize.int8()', 'combined', mode='qat'
    ),
  }
  return _tiny(config) if arg == 'tiny' else config


def _integers(**changes: Any) -> ConfigDict:
  """Return 8 bits for weights and inputs, without training."""
  return settings.compression(
    'quantize.int8()', 'quantize', mode='ptq', epochs=0, **changes
  )


def _tiny(config: ConfigDict) -> ConfigDict:
  config.train.epochs = config.finetune.epochs = 1
  for network in config.networks.values():
    network.sizes = {'conv': (32, 64), 'hidden': (16,)}
  config.measure.engines = ('jax', 'onnxruntime')
  config.measure.repeats = 5
  return config
