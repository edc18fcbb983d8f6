"""Files of one network that are smaller, and mostly faster as well.

  python main.py --config=configs/headline.py --workdir=runs/headline

Tsukijinet2021 on Fashion-MNIST, three seeds, each file in its fastest engine:
the table at the head of the README. About an hour on 2 cores.
"""

from ml_collections import ConfigDict

from tsukiji.config import settings

TEACH = 'distill.kd(4.0)'
GROWING = 'schedule=cubic(0.0, 0.5)'
LEARNED = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 2e-3}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Smaller and faster', finetune=6)
  config.measure.engines = settings.ENGINES
  config.networks = {'tsukijinet2021': settings.network('tsukijinet2021')}
  config.recipes = {
    'int8': _integers(),
    'filters50': settings.compression(
      'prune.filters(macs=0.5, multiple=16, score="taylor", scope="auto") >> '
      + TEACH,
      'channels',
      **{**LEARNED, 'lr': 4e-3},
    ),
    'filters50_int8': _integers(start='filters50'),
    'prune90_int8': settings.compression(
      f'prune.auto(0.9, {GROWING}) >> quantize.int8() >> {TEACH}',
      'combined',
      mode='qat',
      **LEARNED,
    ),
    '2bit': settings.compression(
      'only("(conv1|dense2)/.*", quantize.lsq(8, 8)) >> '
      f'only("(conv2|dense1)/.*", quantize.lsq(2, 8)) >> {TEACH}',
      'quantize',
      mode='qat',
      **LEARNED,
    ),
  }
  return _tiny(config) if arg == 'tiny' else config


def _integers(**more: str) -> ConfigDict:
  """Return 8 bits for weights and inputs, without training."""
  return settings.compression(
    'quantize.int8()', 'quantize', mode='ptq', epochs=0, **more
  )


def _tiny(config: ConfigDict) -> ConfigDict:
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  config.networks.tsukijinet2021.sizes = {'conv': (32, 64), 'hidden': (32,)}
  for item in config.recipes.values():
    item.epochs = min(item.epochs, 1)
  config.measure.engines = ('jax', 'onnxruntime')
  config.measure.repeats = 5
  return config
