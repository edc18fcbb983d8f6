"""Binary and transferred filters on a small GoogLeNet, on Fashion-MNIST.

  python main.py --config=configs/googlenet.py --workdir=runs/googlenet

Rows are those of the small VGGs in `configs.quantization` (binary, 4 epochs
from a network of as many) and `configs.factorization` (moved filters, 2 epochs
from one of 12). The widest layers have as many filters where they move, and
half of them where they are binary: a module has many layers. One seed.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'  # the dense network is the teacher
PLAIN = {'dropout': 0.0, 'label_smoothing': 0.0}
# Outputs of a module of the first stage; the widest layer has twice as many
# filters, that of the VGGs four times as many as their first.
WIDTHS = (8, 16, 32)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
  'plain': (
    'binary.bnn(ends=False)',
    {'shortcuts': False, 'activation': 'hard_tanh'},
  ),
  'modern': (f'binary.react() >> {TEACH}', {}),
}
FILTERS = {
  'negated': 'structured.crelu()',
  'turned': 'structured.rotate()',
  'biased': 'structured.multi_bias()',
  'cropped': 'structured.crop()',
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('GoogLeNet on Fashion-MNIST', finetune=2)
  config.seeds = (0,)
  for name, (text, _) in FORMS.items():
    config.recipes[name] = settings.compression(
      text, 'binary', mode='qat', epochs=4, lr=4e-3, **PLAIN
    )
  for name, text in FILTERS.items():
    config.recipes[name] = settings.compression(
      f'{text} >> {TEACH}', 'filters', **PLAIN
    )
  for width in WIDTHS:
    config.networks[f'googlenet{width}_moved'] = settings.network(
      'googlenet_small', sizes=_sizes(width), recipes=tuple(FILTERS), epochs=12
    )
  for width in WIDTHS:
    config.networks.update(_binary(width))
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _sizes(width: int) -> dict[str, Any]:
  """Return the sizes of a network at a quarter of the pixels."""
  return {'widths': (width, 2 * width, 4 * width), 'stride': 2}


def _binary(width: int) -> dict[str, ConfigDict]:
  """Return the network of a width: float, and in the two binary forms."""
  dense = f'googlenet{width}'
  found = {
    dense: settings.network(
      'googlenet_small', sizes=_sizes(width), recipes=(), epochs=6
    )
  }
  for name, (_, form) in FORMS.items():
    found[f'{dense}_{name}'] = settings.network(
      'binary_googlenet',
      sizes=_sizes(width) | form,
      recipes=(name,),
      of=dense,
      epochs=4,
    )
  return found


def _figures() -> dict[str, ConfigDict]:
  """Return the figures in addition to those of every report."""
  return {
    'widths': settings.figure(
      'Binary networks by width',
      'width',
      {
        'float': r'googlenet\d+/dense',
        'plain': r'googlenet\d+_plain/plain',
        'modern': r'googlenet\d+_modern/modern',
      },
    ),
    'transfers': settings.figure(
      'Moved filters by width',
      'width',
      {'all filters': r'googlenet\d+_moved/dense'}
      | {name: rf'googlenet\d+_moved/{name}' for name in sorted(FILTERS)},
    ),
  }


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with the narrowest networks."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  wanted = ('googlenet8_moved', 'googlenet16_plain')
  config.networks = {name: config.networks[name] for name in wanted}
  config.networks.googlenet8_moved.recipes = ('negated',)
  config.networks.googlenet16_plain.of = 'googlenet8_moved'
  recipes = ('plain', 'negated')
  config.recipes = {name: config.recipes[name] for name in recipes}
  for item in (*config.networks.values(), *config.recipes.values()):
    item.epochs = 1
  for item in config.networks.values():
    item.sizes.update(widths=(8,), stride=1)
  config.figures = {'transfers': config.figures.transfers}
  lines = config.figures.transfers.lines
  config.figures.transfers.lines = tuple(
    line for line in lines if line[0] in ('all filters', 'negated')
  )
  config.measure.repeats = 5
  return config
