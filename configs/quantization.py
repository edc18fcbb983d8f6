"""Quantization on Fashion-MNIST, from 16 bits to one.

  python main.py --config=configs/quantization.py --workdir=runs/quantization

Rows are named by the bits of weights and of layer inputs: w4 has weights of 4
bits, w4a4 also inputs of 4. Those named ptq_ are not trained; those named qat_
are trained for 3 epochs (1 at 8 bits and more), the binary ones and the curves
for 6. About two hours on 2 cores; the results are in results/quantization.json.
Choices were made on the validation set with seed 0.
"""

from typing import Any

from ml_collections import ConfigDict

from tsukiji import settings

TEACH = 'distill.kd(4.0)'  # the dense network is the teacher
PLAIN = {'dropout': 0.0, 'label_smoothing': 0.0}
BITS = (16, 8, 4, 3, 2)
# The image, the weights of the first layer and those of the last keep 8 bits:
# they are few, and no other layer corrects their errors.
ENDS = 'conv1.*|dense2.*'
BETWEEN = 'conv2.*|dense1.*'
# Of the first stage of a VGG, at a quarter of the pixels for short epochs.
WIDTHS = (8, 16, 32)
EPOCHS = 3
LONG = 6
ONE = {'seeds': (0,)}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist(
    'Quantization on Fashion-MNIST', finetune=EPOCHS
  )
  families = {
    'tsukijinet2021': [
      _untrained(),
      _trained(),
      _convergence(),
      _methods(),
    ],
    'binary_tsukijinet': [_binary()],
  }
  plain, modern = _forms()
  config.recipes = {
    name: item
    for parts in (*families.values(), [plain], [modern])
    for part in parts
    for name, item in part.items()
  }
  config.networks = {
    name: settings.network(name, recipes=tuple(k for p in parts for k in p))
    for name, parts in families.items()
  }
  config.networks.binary_tsukijinet.update(of='tsukijinet2021', epochs=8)
  config.networks.update(_vggs(tuple(plain), tuple(modern)))
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _untrained() -> dict[str, ConfigDict]:
  """Return all bit widths without training, and roundings at four bits."""
  found = {}
  for bits in BITS:
    for name, acts in ((f'w{bits}', 0), (f'w{bits}a{bits}', bits)):
      text = f'quantize.gptq({bits}, {acts})' if bits < 16 else ''
      found[f'ptq_{name}'] = _recipe(
        text or f'quantize.uniform({bits}, {acts})', 'ptq', 0
      )
  found['ptq_w1'] = _recipe('binary.weights()', 'ptq', 0, family='binary')
  found['ptq_w1a1'] = _recipe(
    'binary.inputs(scaled=True) >> binary.weights()', 'ptq', 0, family='binary'
  )
  rounded = {
    'nearest': 'quantize.uniform(4, 4)',
    'mse': 'quantize.uniform(4, 4, clip="mse", activation_clip="mse")',
    'kl': 'quantize.uniform(4, 4, clip="kl", activation_clip="kl")',
    'percentile': 'quantize.uniform(4, 4, clip=0.999, activation_clip=0.999)',
    'tensor': 'quantize.uniform(4, 4, per="tensor")',
    'group': 'quantize.uniform(4, 4, per=32)',
    'affine': 'quantize.uniform(4, 4, symmetric=False)',
    'corrected': 'quantize.bias_correction(quantize.uniform(4, 4))',
    'adaptive': 'quantize.adaround(4, 4)',
  }
  for name, text in rounded.items():
    found[f'ptq_w4a4_{name}'] = _recipe(text, 'ptq', 0)
  # Equalization matters where norms are folded into the weights.
  for name, first in (
    ('folded', ''),
    ('equalised', 'quantize.cross_layer_equalization() >> '),
  ):
    found[f'ptq_w4a4_tensor_{name}'] = _recipe(
      first + rounded['tensor'], 'ptq', 0, start='folded'
    )
  found['ptq_half'] = _recipe('quantize.half("bfloat16")', 'ptq', 0, **ONE)
  return found


def _trained() -> dict[str, ConfigDict]:
  """Return all bit widths with learned steps and the teacher."""
  found = {}
  for bits in BITS:
    for name, acts in ((f'w{bits}', 0), (f'w{bits}a{bits}', bits)):
      text = f'{_learned(bits, acts)} >> {TEACH}'
      epochs = 1 if bits >= 8 else EPOCHS
      found[f'qat_{name}'] = _recipe(text, 'qat', epochs, lr=_lr(bits))
  found['qat_w1'] = _recipe(
    f'binary.weights() >> {TEACH}', 'qat', EPOCHS, family='binary', lr=_lr(2)
  )
  # All layers, and the image too.
  found['qat_w2a2_whole'] = _recipe(
    f'quantize.lsq(2, 2) >> {TEACH}', 'qat', EPOCHS, lr=_lr(2)
  )
  return found


def _lr(bits: int) -> float:
  """Return a learning rate; coarse grids need larger steps."""
  return 4e-3 if bits < 4 else 2e-3


def _learned(bits: int, acts: int) -> str:
  """Return learned steps, of at least 8 bits in the first and last layer."""
  if bits >= 8:
    return f'quantize.lsq({bits}, {acts})'
  ends = f'only("{ENDS}", quantize.lsq(8, {8 if acts else 0}))'
  return f'{ends} >> only("{BETWEEN}", quantize.lsq({bits}, {acts}))'


def _convergence() -> dict[str, ConfigDict]:
  """Return training at two bits, plain and with all improvements."""
  ends = f'only("{ENDS}", quantize.uniform(8, 8))'
  between = f'only("{BETWEEN}", quantize.uniform(2, 2))'
  return {
    'course_plain': _recipe(f'{ends} >> {between}', 'qat', LONG, lr=_lr(2)),
    'course_helped': _recipe(
      f'quantize.delay(0.1) >> {_learned(2, 2)} >> {TEACH}',
      'qat',
      LONG,
      lr=_lr(2),
    ),
  }


def _methods() -> dict[str, ConfigDict]:
  """Return the other methods, at their usual bit widths."""
  texts = {
    'grid_w4a4': 'quantize.uniform(4, 4)',
    'pact_w4a4': 'quantize.pact(4, 4)',
    'dorefa_w4a4': 'quantize.dorefa(4, 4)',
    'dorefa_w4a4_gradients': 'quantize.dorefa(4, 4) >> quantize.gradients(6)',
    'ternary': 'quantize.ternary()',
    'auto_3bits': 'quantize.auto(bits=3)',
    'auto_3bits_trace': 'quantize.auto(bits=3, sensitivity="trace")',
    'loss_aware_w1': 'binary.loss_aware()',
  }
  return {
    name: _recipe(f'{text} >> {TEACH}', 'qat', EPOCHS, lr=_lr(2), **ONE)
    for name, text in texts.items()
  }


def _binary() -> dict[str, ConfigDict]:
  """Return binary weights and inputs, with and without float ends."""
  found = {}
  for form in ('bnn', 'react'):
    for name, ends in (('', False), ('_whole', True)):
      text = f'binary.{form}(ends={ends}) >> {TEACH}'
      found[f'{form}{name}'] = _recipe(
        text, 'qat', LONG, family='binary', lr=4e-3
      )
  found['xnor'] = _recipe(
    f'binary.xnor() >> {TEACH}', 'qat', EPOCHS, family='binary', lr=4e-3, **ONE
  )
  return found


def _forms() -> tuple[dict[str, ConfigDict], dict[str, ConfigDict]]:
  """Return the plain and the modern binary VGG."""
  more = {'family': 'binary', 'lr': 4e-3}
  plain = {'vgg_bnn': _recipe('binary.bnn(ends=False)', 'qat', 4, **more)}
  text = f'binary.react() >> {TEACH}'
  return plain, {'vgg_react': _recipe(text, 'qat', 4, **more)}


def _vggs(
  plain: tuple[str, ...], modern: tuple[str, ...]
) -> dict[str, ConfigDict]:
  """Return the small VGG at each width: float, and in the two binary forms."""
  found = {}
  for width in WIDTHS:
    sizes = {'widths': (width, 2 * width, 4 * width), 'stride': 2}
    dense = f'vgg{width}'
    found[dense] = settings.network('vgg', sizes=sizes, recipes=(), epochs=6)
    for name, recipes, form in (
      ('plain', plain, {'shortcuts': False, 'activation': 'hard_tanh'}),
      ('modern', modern, {}),
    ):
      found[f'vgg{width}_{name}'] = settings.network(
        'binary_vgg',
        sizes=sizes | form,
        recipes=recipes,
        of=dense,
        epochs=4,
      )
  return found


def _figures() -> dict[str, ConfigDict]:
  """Return the figures in addition to those of every report."""
  big = 'tsukijinet2021/'
  return {
    'bits': settings.figure(
      'Fewer bits',
      'size',
      {
        'weights, not trained': rf'{big}ptq_w(16|8|4|3|2)',
        'weights and inputs, not trained': rf'{big}ptq_w(16a16|8a8|4a4)',
        'weights, 3 epochs': rf'{big}qat_w\d+',
        'weights and inputs, 3 epochs': rf'{big}qat_w\d+a\d+',
        'binary, 6 epochs': 'binary_tsukijinet/(bnn|react)(_whole)?',
      },
    ),
    'course': settings.figure(
      'Training at two bits',
      'course',
      {
        'plain': f'{big}course_plain',
        'learned steps, late inputs, teacher': f'{big}course_helped',
      },
    ),
    'widths': settings.figure(
      'Binary networks by width',
      'width',
      {
        'float': r'vgg\d+/dense',
        'plain': r'vgg\d+_plain/vgg_bnn',
        'modern': r'vgg\d+_modern/vgg_react',
      },
    ),
  }


def _recipe(method: str, mode: str, epochs: int, **more: Any) -> ConfigDict:
  """Return a recipe that trains for some epochs, without dropout."""
  family = more.pop('family', 'quantize')
  return settings.compression(
    method, family, mode=mode, epochs=epochs, **PLAIN, **more
  )


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with a few of its recipes."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = config.finetune.epochs = 1
  wanted = {
    'tsukijinet2021': ('ptq_w4a4', 'course_helped'),
    'binary_tsukijinet': ('bnn',),
  }
  config.networks = {name: config.networks[name] for name in wanted}
  for name, recipes in wanted.items():
    config.networks[name].update(
      recipes=recipes, epochs=1, sizes={'conv': (4, 8), 'hidden': (16,)}
    )
  names = [name for recipes in wanted.values() for name in recipes]
  config.recipes = {name: config.recipes[name] for name in names}
  for item in config.recipes.values():
    item.update(epochs=min(item.epochs, 1), seeds=())
  config.figures = {'course': config.figures.course}
  config.figures.course.lines = config.figures.course.lines[1:]
  config.measure.repeats = 5
  return config
