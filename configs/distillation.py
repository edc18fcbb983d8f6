"""Distillation: losses, teachers, students, and compression with a teacher.

  python main.py --config=configs/distillation.py --workdir=runs/distillation
  python main.py --config=configs/distillation.py:angle --workdir=runs/angle
  python main.py --config=configs/distillation.py:retrieval \\
    --workdir=runs/retrieval

The first is on Fashion-MNIST and takes three hours on 2 cores; the student of
12,026 parameters is a Tsukijinet2021 with 8 and 16 filters and 32 hidden units.
Each small network is its own reference, so that differences in the tables are
gains over training without a teacher. The other two have no class
probabilities: the angle of rotated digits, and embeddings of digits in which
the nearest neighbor has the same class.
"""

from ml_collections import ConfigDict

from tsukiji import settings

BIG = 'tsukijinet2021'
TEACH = 'distill.kd(4.0)'
# 0.3 of the labels and 0.7 of the teacher, the usual weights.
HEAVY = {'label_weight': 0.3}
KD = 'distill.kd(4.0, 0.7)'
MILD = 'distill.kd(2.0, 0.7)'  # chosen on validation, with seed 0
DIST = 'distill.dist(1.0)'  # in addition to labels of full weight
FLIP = {'augment': ('flip',)}
STUDENTS = {
  'tiny3k': {'conv': (4, 8), 'hidden': (16,)},
  'student12k': {'conv': (8, 16), 'hidden': (32,)},
  'middle47k': {'conv': (16, 32), 'hidden': (64,)},
}
FAST = 8e-3  # the best of 2, 4, 8 and 16e-3 for student12k without a teacher
NEXT = 'middle47k'
CALM = 'calm'  # BIG trained on flipped images with label smoothing
TEACHERS = (NEXT, BIG, 'vgg')  # of growing accuracy
LOSSES = {
  'kd': KD,
  'kd_mild': MILD,
  'kd_hot': 'distill.kd(20.0, 0.7)',
  'kd_cold': 'distill.kd(1.0, 0.7)',
  'kd_cooled': 'distill.kd(8.0, 0.7, temperature_schedule=linear())',
  'squared': 'distill.mse(0.1)',
  'decoupled': 'distill.dkd(4.0, non_target=2.0, schedule=linear(0.0, 0.1))',
  'dist': DIST,
  'hint': f'distill.fitnet("conv2") >> {KD}',
  'attention': f'distill.attention("norm2", weight=10.0) >> {KD}',
  'relations': f'distill.rkd("dense1") >> {KD}',
  'probe': f'distill.probe("conv2", weight=0.3) >> {KD}',
}
SEEDS = {  # of the recipes that do not run with all three
  (0,): (
    'kd_hot',
    'kd_cooled',
    'kd_flip',
    'alone_flip',
    'hints_first',
    'fitnet',
  ),
  (0, 1): ('relations', 'probe', 'smoothed_30', 'binary', 'binary_alone'),
}
SAME = {'kd': 'kd_mild', 'dist': 'dist'}  # recipes of _gap that are in _losses
WIDTHS = {  # bits of weights and of activations
  'w4a8': 'quantize.lsq(4, 8)',
  'w4a4': 'quantize.lsq(4, 4)',
  'w2a2': 'quantize.lsq(2, 2)',
  'w1a1': 'binary.bnn(ends=False)',  # for a network with signed activations
}


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  makers = {'angle': _angle, 'retrieval': _retrieval}
  if arg in makers:
    return makers[arg]()
  config = settings.default()
  config.title = 'Distillation on Fashion-MNIST'
  config.dataset.name = 'fashion_mnist'
  config.dataset.validation = 5000
  config.seeds = (0, 1, 2)
  # Without augmentation the teacher runs once for all epochs.
  config.train = settings.training(epochs=10)
  config.finetune = settings.training(epochs=10, lr=FAST)
  config.helper = TEACH
  losses, gap, low = _losses(), _gap(), _apprentice()
  compressed = _compressed()
  config.recipes = losses | gap | low | compressed
  for seeds, names in SEEDS.items():
    for name in names:
      config.recipes[name].seeds = seeds
  config.networks = {
    BIG: settings.network(BIG, epochs=16, recipes=(*compressed,)),
    CALM: settings.network(
      BIG,
      epochs=16,
      train={**FLIP, 'label_smoothing': 0.1},
      recipes=(),
    ),
    'vgg': settings.network(
      'vgg', sizes={'widths': (32, 64, 128), 'stride': 2}, recipes=()
    ),
    **{
      name: settings.network(
        BIG,
        sizes={**sizes, 'dropout': 0.0},
        train={'lr': FAST},
        recipes=(*gap,),
      )
      for name, sizes in STUDENTS.items()
    },
  }
  # Two of the recipes of _gap are in _losses.
  rest = (name for name in gap if not name.endswith(BIG))
  binary = tuple(name for name in low if name.startswith('w1a1'))
  grids = (name for name in low if name not in binary)
  config.networks.student12k.recipes = (*losses, *rest, *grids)
  sizes = {'conv': (8, 16), 'hidden': (32,)}
  config.networks.signs12k = settings.network(
    'binary_tsukijinet', sizes=sizes, train={'lr': FAST}, recipes=binary
  )
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _distilled(method: str, *teachers: str, **more: object) -> ConfigDict:
  """Return a recipe from new weights, with other networks as teachers."""
  changes = {'start': 'fresh', 'teacher': teachers, **more}
  return settings.compression(method, 'distill', **changes)


def _undistilled(method: str, family: str, **more: object) -> ConfigDict:
  """Return a recipe without a teacher."""
  return settings.compression(method, family, use_helper=False, **more)


def _losses() -> dict[str, ConfigDict]:
  """Return the student with each loss, and controls."""
  found = {
    name: _distilled(x, BIG, **({} if x == DIST else HEAVY))
    for name, x in LOSSES.items()
  }
  # Without labels, from one teacher and from an ensemble.
  found['kd_no_labels'] = _distilled('distill.kd(2.0)', BIG, label_weight=0.0)
  found['kd_ensemble'] = _distilled(
    'distill.kd(2.0)', BIG, 'vgg', label_weight=0.0
  )
  # FitNets: first only hints.
  hints = 'distill.fitnet("conv2")'
  found['hints_first'] = _distilled(hints, BIG, label_weight=0.0, epochs=3)
  found['fitnet'] = found['kd'].copy_and_resolve_references()
  found['fitnet'].update(start='hints_first', epochs=7)
  # Longer, and with augmentation, with and without a teacher.
  fresh = {'start': 'fresh', 'role': 'control_scratch'}
  for name, more in (('30', {'epochs': 30}), ('flip', {'train': FLIP})):
    found[f'kd_{name}'] = _distilled(MILD, BIG, **more, **HEAVY)
    found[f'alone_{name}'] = _undistilled('', 'distill', **more, **fresh)
  # A teacher that is less confident on its training images, and label smoothing
  # without a teacher.
  for name, epochs in (('', 10), ('_30', 30)):
    found[f'kd_calm{name}'] = _distilled(
      'distill.kd(1.0)', CALM, label_weight=0.0, epochs=epochs
    )
    smooth = {'label_smoothing': 0.1, 'epochs': epochs, **fresh}
    found[f'smoothed{name}'] = _undistilled('', 'distill', **smooth)
  return found


def _gap() -> dict[str, ConfigDict]:
  """Return every student with every teacher, by KD and by DIST."""
  kinds = {'kd': (MILD, HEAVY), 'dist': (DIST, {})}
  return {
    f'{kind}_of_{teacher}': _distilled(text, teacher, **weights)
    for teacher in TEACHERS
    for kind, (text, weights) in kinds.items()
  }


def _apprentice() -> dict[str, ConfigDict]:
  r"""Return low precision without a teacher, and with one in three schemes.

  Those of Mishra & Marr 2018, arXiv 1711.05852.

  A: the teacher is trained in the same steps; B: it is trained, and the student
  starts from new weights; C: both are trained, and the student is fine-tuned.
  $\beta = \gamma = 0.5$ gives labels and teacher equal weights, at temperature
  1. The teacher has four times the parameters, as in the paper.
  """
  found = {}
  for width, method in WIDTHS.items():
    text = f'{method} >> distill.kd(1.0)'
    fresh = {'epochs': 6, 'start': 'fresh', 'mode': 'qat'}
    tuned = {'epochs': 3, 'start': 'dense', 'mode': 'qat', 'lr': 2e-3}
    found[f'{width}_alone'] = _undistilled(method, 'quantize', **fresh)
    found[f'{width}_tuned'] = _undistilled(method, 'quantize', **tuned)
    found[f'{width}_A'] = _distilled(text, NEXT, train_teacher=True, **fresh)
    found[f'{width}_B'] = _distilled(text, NEXT, **fresh)
    found[f'{width}_C'] = _distilled(text, NEXT, **tuned)
  return found


def _compressed() -> dict[str, ConfigDict]:
  """Return compression with and without the teacher of the config."""
  texts = {
    'prune95': ('prune.auto(0.95, schedule=cubic(0.0, 0.7))', 'prune'),
    'bits2': ('quantize.lsq(2)', 'quantize'),
    'binary': ('binary.weights()', 'binary'),
    'lowrank8': ('lowrank.auto(size=0.125)', 'lowrank'),
  }
  found = {}
  for name, (text, family) in texts.items():
    more = {'epochs': 3, 'lr': 4e-3, 'dropout': 0.0}
    found[name] = settings.compression(text, family, **more)
    found[f'{name}_alone'] = _undistilled(text, family, **more)
  return found


def _figures() -> dict[str, ConfigDict]:
  """Return the figures in addition to those of every report."""
  lines = {'alone': '|'.join(f'{name}/dense' for name in STUDENTS)}
  for teacher in TEACHERS:
    for kind, label in (('kd', 'KD'), ('dist', 'DIST')):
      more = f'|student12k/{SAME[kind]}' if teacher == BIG else ''
      lines[f'{label} from {teacher}'] = f'.*/{kind}_of_{teacher}{more}'
  schemes = {
    'from scratch': 'alone',
    'fine-tuned': 'tuned',
    'A, teacher trained too': 'A',
    'B, teacher, from scratch': 'B',
    'C, teacher, fine-tuned': 'C',
  }
  longer = {
    'alone': 'alone',
    'smooth labels': 'smoothed',
    'labels and teacher': 'kd',
    'a less confident teacher': 'kd_calm',
  }
  return {
    'gap': settings.figure(
      'Three students under three teachers', 'size', lines
    ),
    'apprentice': settings.figure(
      'Few bits with and without a teacher',
      'size',
      {k: rf'.*12k/w\d+a\d+_{name}' for k, name in schemes.items()},
    ),
    'longer': settings.figure(
      'Thirty epochs of a small student',
      'course',
      {k: f'student12k/{name}_30' for k, name in longer.items()},
    ),
  }


def _digits(title: str, dataset: str, loss: str) -> ConfigDict:
  """Return the settings of the tasks without a softmax: digits, five seeds."""
  config = settings.default()
  config.title, config.dataset.name = title, dataset
  config.seeds = (0, 1, 2, 3, 4)
  config.train = settings.training(epochs=30, batch_size=64, loss=loss)
  config.finetune = settings.training(epochs=30, batch_size=64, loss=loss)
  config.networks = {
    'teacher': settings.network(BIG, recipes=()),
    'student': settings.network(
      BIG, sizes={'conv': (4, 4), 'hidden': (8,), 'dropout': 0.0}
    ),
  }
  return config


def _angle() -> ConfigDict:
  """Return the regression task: the angle of a rotated digit."""
  title = 'Distillation of a regression: the angle of turned digits'
  config = _digits(title, 'digits_angle', 'squared_error')
  texts = {
    'squared': ('distill.mse()', 1.0),
    'bounded': ('distill.bounded(0.0, 1.0)', 1.0),
    'trusted': ('distill.trusted(0.3)', 0.0),
    'hint': ('distill.fitnet("conv2", weight=0.1)', 1.0),
  }
  config.recipes = {
    name: _distilled(text, 'teacher', label_weight=labels)
    for name, (text, labels) in texts.items()
  }
  return config


def _retrieval() -> ConfigDict:
  """Return the embedding task: nearest neighbors of the same class."""
  title = 'Distillation of an embedding: the nearest of the digits'
  config = _digits(title, 'digits', 'triplet')
  config.networks.teacher.outputs = 32
  config.networks.student.outputs = 8  # relations need no equal size
  config.recipes = {
    'relations': _distilled('distill.rkd()', 'teacher'),
    'relations_alone': _distilled('distill.rkd()', 'teacher', label_weight=0.0),
    'distances': _distilled('distill.rkd(angle=0.0)', 'teacher'),
    'angles': _distilled('distill.rkd(distance=0.0)', 'teacher'),
  }
  return config


def _tiny(config: ConfigDict) -> ConfigDict:
  """Return the config on digits, with a few of its recipes."""
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.train.epochs = 1
  few = ('hint', 'w4a4_A', 'bits2')
  config.recipes = {name: config.recipes[name] for name in few}
  for item in config.recipes.values():
    item.epochs = 1
  kept = (BIG, NEXT, 'tiny3k')
  config.networks = {name: config.networks[name] for name in kept}
  for name in (BIG, NEXT):
    config.networks[name].update(recipes=(), epochs=1, sizes=STUDENTS['tiny3k'])
  small = config.networks.tiny3k
  small.update(sizes={'conv': (2, 4), 'hidden': (8,)}, recipes=few)
  config.figures = {}
  config.measure.repeats = 5
  return config
