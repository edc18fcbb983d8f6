"""Windows of motion sensors: seven exercises with a smartwatch, by person.

  pip install --no-deps seglearn
  python main.py --config=configs/sensors.py --workdir=runs/sensors

What Tsukijinet was made for. Three of the ten people are the test set, one or
more others (`dataset.validation`) are held out for choices: nobody is in two
splits. ':basic_motions' takes four activities of the UEA archive (aeon).
"""

from ml_collections import ConfigDict

from tsukiji import settings

LEARNED = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 1e-3}
PRUNE = 'prune.auto(0.9, schedule=cubic(0.0, 0.5))'


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.default()
  config.title = 'Exercises with a smartwatch'
  config.dataset.update(name='watch', validation=0.15)
  config.seeds = (0, 1, 2)
  config.train = settings.training(epochs=20, batch_size=64, lr=1e-3)
  config.finetune = settings.training(epochs=8, batch_size=64, lr=1e-3)
  config.measure.engines = settings.ENGINES
  config.networks = {
    'tsukijinet2021': settings.network('tsukijinet2021'),
    'small': settings.network(
      'tsukijinet2021',
      sizes={'conv': (16, 32), 'hidden': (32,)},
      role='control_scratch',
      of='tsukijinet2021',
      recipes=('int8',),
    ),
  }
  config.recipes = {
    'int8': settings.compression(
      'quantize.int8()', 'quantize', mode='ptq', epochs=0
    ),
    'filters50_int8': settings.compression(
      'prune.filters(macs=0.5, score="taylor") >> quantize.int8()',
      'combined',
      mode='qat',
    ),
    'prune90_int8': settings.compression(
      f'{PRUNE} >> quantize.int8()', 'combined', mode='qat', **LEARNED
    ),
    'random90_int8': settings.compression(
      'prune.weights(0.9, score="random") >> quantize.int8()',
      'combined',
      mode='qat',
      role='control_random',
      **LEARNED,
    ),
    '2bit': settings.compression(
      'only("(conv1|dense2)/.*", quantize.lsq(8, 8)) >> '
      'only("(conv2|dense1)/.*", quantize.lsq(2, 8))',
      'quantize',
      mode='qat',
      **LEARNED,
    ),
  }
  if arg == 'basic_motions':
    return _basic_motions(config)
  return _tiny(config) if arg == 'tiny' else config


def _basic_motions(config: ConfigDict) -> ConfigDict:
  """Return the config with 40 windows to train on, 8 of them for choices."""
  config.title = 'Four activities with a smartwatch'
  config.dataset.update(name='basic_motions', validation=8)
  for training in (config.train, config.finetune):
    training.update(epochs=40, batch_size=16)
  return config


def _tiny(config: ConfigDict) -> ConfigDict:
  config.dataset.update(name='digits', validation=0.1)
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  for network in config.networks.values():
    network.sizes = {'conv': (32, 64), 'hidden': (32,)}
  for item in config.recipes.values():
    item.epochs = min(item.epochs, 1)
  config.measure.engines = ('jax', 'onnxruntime')
  config.measure.repeats = 5
  return config
