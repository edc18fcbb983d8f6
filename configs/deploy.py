"""Fast networks: integers, zeros, fewer filters, binary; in all engines.

  python main.py --config=configs/deploy.py --workdir=runs/deploy

Every row runs in the fastest of XLA, ONNX Runtime, OpenVINO (`pip install
openvino`, which is optional) and its own C file; its speed-up is relative to
the dense network of the same architecture in the fastest engine of that one,
of the student to Tsukijinet2021. `benchmarks.deploy` times the files in all
engines. Two hours on 2 cores.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'
PARTS = (50, 30, 20)  # % of the multiplications that remain
ZEROS = (95, 98)  # % of the weights
SPARSE = {'dropout': 0.0, 'label_smoothing': 0.0, 'lr': 4e-3}
ONE = {'seeds': (0,)}
VGG = {'widths': (64, 128, 256), 'stride': 2}
STUDENT = {'conv': (8, 16), 'hidden': (32,)}  # 12 thousand parameters


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Deployment on Fashion-MNIST', finetune=12)
  config.measure.engines = settings.ENGINES
  own_recipes = _zeros() | _filters()
  config.recipes = {'int8': _integers(), **own_recipes, **_binary()}
  config.recipes['bits4'] = _student()
  own: dict[str, Any] = {'recipes': ('int8',), **ONE}
  config.networks = {
    'tsukijinet2021': settings.network(
      'tsukijinet2021', recipes=('int8', *own_recipes)
    ),
    'student': settings.network(
      'tsukijinet2021',
      sizes=STUDENT,
      of='tsukijinet2021',
      recipes=('int8', 'bits4'),
      train={'lr': 8e-3},
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


def _zeros() -> dict[str, ConfigDict]:
  """Return networks most of whose weights are 0."""
  return {
    f'zeros{share}': settings.compression(
      f'prune.weights({share / 100}, scope="global", '
      f'schedule=cubic(0.0, 0.6)) >> {TEACH}',
      'prune',
      **SPARSE,
    )
    for share in ZEROS
  }


def _student() -> ConfigDict:
  """Return a small network with weights of 4 bits and inputs of 8."""
  return settings.compression(
    f'quantize.lsq(4, 8) >> {TEACH}', 'quantize', mode='qat', **SPARSE
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
