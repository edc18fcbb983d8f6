"""Low rank, structure, sharing and small filters on Fashion-MNIST.

  python main.py --config=configs/factorization.py --workdir=runs/factorization

Rows that end in a number divide the parameters by it; deep_ is pruned, shared
and entropy coded. Fine-tuning takes 2 epochs unless stated otherwise, with the
dense network as teacher. Rows that are compared with published figures have
three seeds, the other families on Tsukijinet2021 two, the VGGs, the ResNet and
single methods one. About two hours on 2 cores.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'  # the dense network is the teacher
PLAIN = {'dropout': 0.0, 'label_smoothing': 0.0}
RATES = (2, 4, 8, 16)
EPOCHS = 2
LONG = 4
# All but the first and the last layer, which are the most sensitive.
LARGE = 'conv2.*|dense1.*|conv1_2.*|conv3.*'
# An eighth of the numbers of Tsukijinet2021.
RANKS = {'conv2/kernel': 11, 'dense1/kernel': 22}
# Equal shares of all ranks, at a quarter of the multiplications.
ALIKE = {
  'conv1/kernel': 5,
  'conv2/kernel': 14,
  'dense1/kernel': 54,
  'dense2/kernel': 2,
}
# Deep Compression: share of weights that remain, epochs of pruning and of
# sharing, and the layers with 16 values, others have 8.
DEEP = {
  'lenet_300_100': (0.09, 40, 10, 'dense3'),
  'lenet5': (0.075, 12, 4, 'conv1|conv2|dense2'),
  'tsukijinet2021': (0.062, 16, 4, 'conv1|dense2'),
}
# Loss per bit a weight, and epochs, of quantization with an entropy penalty.
RATED = {'lenet5': (0.01, 6), 'tsukijinet2021': (0.01, 6)}
RISE = 'schedule=cubic(0.0, 0.7)'
SMALL = ('separable', 'bottleneck')  # and 'fire', where windows are padded
ONE: dict[str, Any] = {'seeds': (0,)}
TWO: dict[str, Any] = {'seeds': (0, 1)}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist(
    'Factorization, structure and sharing on Fashion-MNIST', finetune=EPOCHS
  )
  deep = {name: _deep(name) | _rated(name) for name in DEEP}
  rates, moved = _rates(), _moved()
  large = rates | _shared() | _structures() | _small(*SMALL) | _ranks()
  families = {
    'tsukijinet2021': large | _courses() | _learned() | deep['tsukijinet2021'],
    'lenet5': deep['lenet5'],
    'lenet_300_100': deep['lenet_300_100'],
    'vgg16': rates | _shared((4, 2, 1)) | _small(*SMALL, 'fire') | moved,
    'vgg8': moved,
    'vgg4': moved,
    'resnet': moved,
  }
  for recipes in families.values():
    config.recipes.update(recipes)
  config.networks = {
    name: settings.network(
      name.rstrip('0123456789') if name.startswith('vgg') else name,
      recipes=tuple(recipes),
    )
    for name, recipes in families.items()
  }
  _sized(config)
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _sized(config: ConfigDict) -> None:
  """Give the VGGs and the ResNet their sizes, and add the small networks."""
  for width in (4, 8, 16):
    config.networks[f'vgg{width}'].update(_vgg(width))
  config.networks.resnet.sizes = {'blocks': 3, 'stride': 2}
  config.networks.resnet.update(epochs=8, **ONE)
  control = {'role': 'control_scratch', 'recipes': ()}
  for width in (6, 11):
    config.networks[f'vgg{width}'] = settings.network(
      'vgg', of='vgg16', **control, **_vgg(width)
    )
  narrow = {
    154: ((24, 48), 160),
    69: ((16, 40), 80),
    35: ((12, 32), 48),
    18: ((8, 24), 32),
  }
  for count, (conv, hidden) in narrow.items():
    config.networks[f'narrow{count}k'] = settings.network(
      'tsukijinet2021',
      of='tsukijinet2021',
      sizes={'conv': conv, 'hidden': (hidden,)},
      **control,
    )


def _vgg(width: int) -> dict[str, Any]:
  """Return the settings of a VGG at a quarter of the pixels."""
  widths = (width, 2 * width, 4 * width)
  return {'sizes': {'widths': widths, 'stride': 2}, 'epochs': 12} | ONE


def _rates() -> dict[str, ConfigDict]:
  """Return factors and structured matrices at every rate."""
  found = {}
  for rate in RATES:
    text = f'lowrank.auto(size={1 / rate})'
    found[f'lowrank{rate}'] = _recipe(text, 'lowrank')
    text = f'only("{LARGE}", structured.auto({1 / rate}))'
    found[f'structured{rate}'] = _recipe(text, 'structured', **TWO)
  return found


def _shared(widths: tuple[int, ...] = (8, 4, 2, 1)) -> dict[str, ConfigDict]:
  """Return codebooks by the bits of an index, and hashed weights."""
  found = {
    f'shared_{bits}bits': _recipe(f'share.kmeans(bits={bits})', 'share', **TWO)
    for bits in widths
  }
  for rate in RATES:
    text = f'only("{LARGE}", share.hashed({1 / rate}))'
    found[f'hashed{rate}'] = _recipe(text, 'share', **ONE)
  text = f'only("{LARGE}", share.product(64, 4))'
  found['product'] = _recipe(text, 'share', **ONE)
  return found


def _structures() -> dict[str, ConfigDict]:
  """Return each structure at an eighth, to compare with the chosen one."""
  texts = {
    'circulant': f'only("{LARGE}", structured.circulant(8, pad=True))',
    'toeplitz': f'only("{LARGE}", structured.toeplitz(1, 16, pad=True))',
    'fastfood': f'only("{LARGE}", structured.fastfood(32, pad=True))',
    'butterfly': f'only("{LARGE}", structured.butterfly(128, pad=True))',
  }
  return {
    f'{name}8': _recipe(text, 'structured', **ONE)
    for name, text in texts.items()
  }


def _small(*kinds: str) -> dict[str, ConfigDict]:
  """Return compact filters in place of large ones."""
  return {kind: _recipe('', 'filters', compact=kind, **TWO) for kind in kinds}


def _moved() -> dict[str, ConfigDict]:
  """Return filters that are transformed copies of fewer."""
  texts = {
    'negated': 'structured.crelu()',
    'turned': 'structured.rotate()',
    'biased': 'structured.multi_bias()',
    'cropped': 'structured.crop()',
  }
  found = {name: _recipe(text, 'filters') for name, text in texts.items()}
  for name in ('biased', 'cropped'):
    found[name].update(ONE)
  return found


def _ranks() -> dict[str, ConfigDict]:
  """Return equal and automatic ranks, before and after training."""
  texts = {
    'alike': f'lowrank.svd({ALIKE})',
    'minimax': 'lowrank.auto(macs=0.25, sensitivity="operator", goal="max", '
    'fold="channel")',
    'global': 'lowrank.auto(macs=0.25, fold="channel")',
    'folds': 'lowrank.auto(macs=0.25)',
  }
  found = {}
  for name, text in texts.items():
    found[f'ranks_{name}_0'] = settings.compression(
      text, 'lowrank', mode='one_shot', epochs=0
    )
    found[f'ranks_{name}'] = _recipe(text, 'lowrank')
  for name in ('minimax_0', 'minimax', 'folds_0', 'folds'):
    found[f'ranks_{name}'].update(ONE)
  found['ranks_learned'] = _recipe(
    'lowrank.learned_rank(8.0, of="macs")',
    'lowrank',
    mode='lc',
    epochs=LONG,
    **ONE,
  )
  return found


def _courses() -> dict[str, ConfigDict]:
  """Return an eighth of the numbers, by epochs of training."""
  text = f'lowrank.svd({RANKS})'
  found = {'course_plain': (text, ''), 'course_taught': (text, TEACH)}
  found['course_learned'] = f'lc({text}, dual=False)', TEACH
  return {
    name: _recipe(method, 'lowrank', teach=teach, epochs=LONG)
    for name, (method, teach) in found.items()
  }


def _learned() -> dict[str, ConfigDict]:
  """Return projections trained directly, and by learning-compression."""
  projections = {
    'prune95': 'prune.weights(0.95)',
    'grid2': 'quantize.uniform(2, clip="mse")',
    'kmeans4': 'share.kmeans(4)',
    'circulant16': f'only("{LARGE}", structured.circulant(16, pad=True))',
    'plus_sparse': f'only("{LARGE}", lowrank.plus_sparse(4, 0.95, examples=0))',
  }
  direct = projections | {
    'prune95': f'prune.weights(0.95, {RISE})',
    'plus_sparse': f'only("{LARGE}", lowrank.plus_sparse(4, 0.95))',
  }
  found = {}
  for name, projection in projections.items():
    family = 'combined' if name == 'plus_sparse' else 'share'
    for way, text, mode in (
      ('direct', direct[name], 'finetune'),
      ('lc', f'lc({projection}, dual=False)', 'lc'),
      ('admm', f'admm({projection})', 'lc'),
    ):
      item = _recipe(text, family, mode=mode, epochs=LONG, **ONE)
      found[f'{name}_{way}'] = item
  return found


def _deep(network: str) -> dict[str, ConfigDict]:
  """Return Deep Compression: pruned weights, then few values a layer."""
  left, pruning, sharing, ends = DEEP[network]
  zeros = round(1 - left, 4)
  first = f'deep_{network}_pruned'
  pruned = f'prune.auto({zeros}, sensitivity="signal", {RISE})'
  shared = (
    f'only("({ends})/.*", share.kmeans(16)) >> '
    f'only("(?!{ends}).*", share.kmeans(8))'
  )
  return {
    first: _recipe(pruned, 'prune', epochs=pruning, lr=4e-3),
    f'deep_{network}': _recipe(
      shared, 'combined', epochs=sharing, lr=1e-3, start=first
    ),
  }


def _rated(network: str) -> dict[str, ConfigDict]:
  """Return 4-bit weights whose entropy is a part of the loss."""
  if network not in RATED:
    return {}
  strength, epochs = RATED[network]
  rate = f'regularize.entropy({strength}, schedule=linear(0.0, 0.5))'
  return {
    f'rated_{network}': _recipe(
      f'quantize.lsq(4) >> {rate}', 'combined', mode='qat', epochs=epochs
    )
  }


def _recipe(
  method: str, family: str, *, teach: str = TEACH, **more: Any
) -> ConfigDict:
  """Return a recipe with the dense network as teacher, without dropout."""
  text = ' >> '.join(part for part in (method, teach) if part)
  return settings.compression(text, family, **(PLAIN | more))


def _figures() -> dict[str, ConfigDict]:
  """Return the figures in addition to those of every report."""
  big = 'tsukijinet2021/'

  def by_rate(network: str) -> dict[str, str]:
    return {
      'low rank': rf'{network}/lowrank\d+',
      'structured, chosen': rf'{network}/structured\d+',
      'codebooks': rf'{network}/shared_\dbits',
      'hashed': rf'{network}/hashed\d+',
      'small filters': f'{network}/(separable|bottleneck|fire)',
    }

  moved = ('biased', 'cropped', 'negated', 'turned')
  narrow = {'narrower from scratch': r'narrow\d+k/dense'}
  deep = {
    'deep compression': f'{big}deep_tsukijinet2021',
    'bits in the loss': f'{big}rated_tsukijinet2021',
  }
  return {
    'families': settings.figure(
      'Tsukijinet2021 at 2 to 16 times fewer numbers',
      'size',
      by_rate('tsukijinet2021') | deep | narrow,
    ),
    'families_macs': settings.figure(
      'Tsukijinet2021 by multiplications',
      'macs',
      {
        'low rank, by numbers': rf'{big}lowrank\d+',
        'small filters': f'{big}(separable|bottleneck)',
      }
      | narrow,
    ),
    'families_vgg': settings.figure(
      'A small VGG at 2 to 16 times fewer numbers',
      'size',
      by_rate('vgg16')
      | {
        'moved filters': f'vgg16/({"|".join(moved)})',
        'narrower from scratch': r'vgg(4|6|8|11)/dense',
      },
    ),
    'retraining': settings.figure(
      'An eighth of the numbers, by epochs',
      'course',
      {
        'plain': f'{big}course_plain',
        'teacher': f'{big}course_taught',
        'learning-compression, teacher': f'{big}course_learned',
      },
    ),
    'transfers': settings.figure(
      'Moved filters by width',
      'width',
      {'all filters': r'vgg(4|8|16)/dense'}
      | {name: rf'vgg\d+/{name}' for name in moved},
    ),
  }


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with a few of its recipes."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  wanted = ('lowrank2', 'deep_tsukijinet2021_pruned', 'deep_tsukijinet2021')
  config.networks = {'tsukijinet2021': config.networks.tsukijinet2021}
  config.networks.tsukijinet2021.update(
    recipes=wanted, epochs=1, sizes={'conv': (4, 8), 'hidden': (16,)}
  )
  config.recipes = {name: config.recipes[name] for name in wanted}
  for item in config.recipes.values():
    item.update(epochs=1, method=item.method.replace('0.938', '0.2'))
  config.figures = {}
  config.measure.repeats = 5
  return config
