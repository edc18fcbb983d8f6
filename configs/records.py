"""The smallest files at an accuracy: students with their bits in the loss.

  python main.py --config=configs/records.py --workdir=runs/records

A wide network whose weights cost few bits each, or a narrow one whose weights
cost many? Students of four widths on Fashion-MNIST, weights and inputs on
learned grids of 4 and 8 bits, alone and with the mean bits of a weight in the
loss (`regularize.entropy`), which the coder of the file turns into bytes.
About five hours on 2 cores; each width is a third of the next.
"""

from ml_collections import ConfigDict

from tsukiji import settings

WIDTHS = (8, 12, 16, 24)  # filters of the first of three stages
RATES = (0.01, 0.03, 0.1)  # loss per bit of a weight, on average
TEACH = 'distill.kd(4.0)'
GRID = 'quantize.lsq(4, 8)'


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Bits in the loss', finetune=16)
  config.train.update(lr=8e-3, epochs=16)
  for width in WIDTHS:
    config.networks[f'student{width}'] = settings.network(
      'student', sizes={'width': width}
    )
  config.recipes['bits4'] = _quantized(GRID)
  for rate in RATES:
    text = f'{GRID} >> regularize.entropy({rate}, schedule=linear(0.0, 0.5))'
    config.recipes[f'bits4_rate{round(100 * rate):02}'] = _quantized(text)
  config.figures['rates'] = settings.figure(
    'Bits in the loss',
    'size',
    {f'{width} filters': f'student{width}/bits4.*' for width in WIDTHS},
  )
  return _tiny(config) if arg == 'tiny' else config


def _quantized(text: str) -> ConfigDict:
  """Return a recipe with the dense network as its teacher."""
  own = {'lr': 4e-3, 'dropout': 0.0, 'label_smoothing': 0.0, 'float_bits': 8}
  return settings.compression(
    f'{text} >> {TEACH}', 'quantize', mode='qat', **own
  )


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with one width."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.networks = {'student8': config.networks.student8}
  config.figures = {}
  config.train.epochs = config.finetune.epochs = 1
  config.measure.repeats = 5
  return config
