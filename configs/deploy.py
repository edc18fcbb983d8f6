"""Fast networks: integers, fewer filters and binary weights, in all engines.

  python main.py --config=configs/deploy.py --workdir=runs/deploy

Every row runs in the fastest of XLA, ONNX Runtime, OpenVINO (`pip install
openvino`, which is optional) and its own C file; its speed-up is relative to
the dense network of the same architecture in the fastest engine of that one.
`benchmarks.deploy` times the files in all engines. About an hour on 2 cores.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'
PARTS = (50, 40, 30)  # % of the multiplications that remain
SPARSE = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 4e-3}
ONE = {'seeds': (0,)}
VGG = {'widths': (64, 128, 256), 'stride': 2}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Deployment on Fashion-MNIST', finetune=12)
  config.measure.engines = settings.ENGINES
  filters, binary = _filters(), _binary()
  config.recipes = {'int8': _integers()} | filters | binary
  own: dict[str, Any] = {'recipes': ('int8',), **ONE}
  config.networks = {
    'tsukijinet2021': settings.network(
      'tsukijinet2021', recipes=('int8', *filters)
    ),
    'padded': settings.network(
      'tsukijinet2021', sizes={'padding': 'SAME'}, epochs=8, **own
    ),
    'vgg': settings.network('vgg', sizes=VGG, epochs=5, **own),
    'binary_tsukijinet': settings.network(
      'binary_tsukijinet', recipes=('bnn',), **ONE
    ),
    'binary_vgg': settings.network(
      'binary_vgg', sizes=VGG, epochs=5, recipes=('react',), **ONE
    ),
  }
  return _tiny(config) if arg == 'tiny' else config


def _integers(**more: Any) -> ConfigDict:
  """Return 8 bits for weights and inputs, without training."""
  return settings.compression(
    'quantize.int8()', 'quantize', mode='ptq', epochs=0, **more
  )


def _filters() -> dict[str, ConfigDict]:
  """Return networks with fewer filters, in floats and in integers."""
  found = {}
  for part in PARTS:
    text = (
      f'prune.filters(macs={part / 100}, multiple=16, score="taylor", '
      f'scope="auto") >> {TEACH}'
    )
    name = f'filters{part}'
    found[name] = settings.compression(text, 'channels', **SPARSE)
    found[f'{name}_int8'] = _integers(start=name)
  return found


def _binary() -> dict[str, ConfigDict]:
  """Return binary networks, with first and last layers in floats."""
  tuned = {'mode': 'qat', 'epochs': 4, **ONE}
  return {
    'bnn': settings.compression('binary.bnn(ends=False)', 'binary', **tuned),
    'react': settings.compression(
      f'binary.react() >> {TEACH}', 'binary', **tuned
    ),
  }


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with a few of its recipes."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  wanted = ('int8', 'filters50', 'filters50_int8')
  config.networks = {'tsukijinet2021': config.networks.tsukijinet2021}
  config.networks.tsukijinet2021.update(
    recipes=wanted, sizes={'conv': (32, 64), 'hidden': (32,)}
  )
  config.recipes = {name: config.recipes[name] for name in wanted}
  config.measure.engines = ('jax', 'onnxruntime')
  config.measure.repeats = 5
  return config
