"""Binary ResNets of two widths, beside the same networks in floats.

  python main.py --config=configs/binary_resnet.py --workdir=runs/binary_resnet

Settings are those of the small VGGs in `configs.quantization` and of
`configs.googlenet`: on Fashion-MNIST, 4 epochs of signs from a network of as
many. The plain form has shortcuts around blocks and inputs of 1 bit as they
are (Hubara+ 2016); the modern one has shortcuts around convolutions, shifts,
and the dense network as its teacher (Liu+ 2020). An hour on 2 cores.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'
PLAIN = {'dropout': 0.0, 'label_smoothing': 0.0}
WIDTHS = (8, 16)  # of the first stage; the last has four times as many
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
  'plain': (
    'binary.bnn(ends=False)',
    {'shortcuts': 'blocks', 'activation': 'hard_tanh'},
  ),
  'modern': (f'binary.react() >> {TEACH}', {}),
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Binary ResNets on Fashion-MNIST', finetune=4)
  for name, (text, _) in FORMS.items():
    config.recipes[name] = settings.compression(
      text, 'binary', mode='qat', lr=4e-3, **PLAIN
    )
  for width in WIDTHS:
    sizes = {'widths': (width, 2 * width, 4 * width), 'stride': 2}
    dense = f'resnet{width}'
    config.networks[dense] = settings.network(
      'resnet', sizes=sizes, recipes=(), epochs=6
    )
    for name, (_, form) in FORMS.items():
      config.networks[f'{dense}_{name}'] = settings.network(
        'binary_resnet', sizes=sizes | form, recipes=(name,), of=dense, epochs=4
      )
  return _tiny(config) if arg == 'tiny' else config


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with the narrowest networks."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  for name in [*config.networks]:
    if not name.startswith('resnet8'):
      del config.networks[name]
  for item in (*config.networks.values(), *config.recipes.values()):
    item.epochs = 1
  for item in config.networks.values():
    item.sizes.update(widths=(4, 8), stride=1)
  config.measure.repeats = 5
  return config
