"""Distillation: when a teacher helps, and what it has to say.

  python main.py --config=configs/distillation.py --workdir=runs/distillation
  python main.py --config=configs/distillation.py:angle --workdir=runs/angle
  python main.py --config=configs/distillation.py:retrieval \\
    --workdir=runs/retrieval

The first is on Fashion-MNIST and takes three hours on 2 cores; the student of
12,026 parameters is a Tsukijinet2021 with 8 and 16 filters and 32 hidden units.
Each small network is its own reference, so that differences in the tables are
gains over training alone. The other two have no classes to soften: the angle of
turned digits, and embeddings of digits in which the nearest neighbour is of the
same class.
"""

from ml_collections import ConfigDict

from tsukiji.config import settings

BIG = 'tsukijinet2021'
TEACH = 'distill.kd(4.0)'
# 0.3 of the labels and 0.7 of the teacher, as the textbooks have it.
HEAVY = {'label_weight': 0.3}
KD = 'distill.kd(4.0, 0.7)'
MILD = 'distill.kd(2.0, 0.7)'  # chosen on validation, with seed 0
DIST = 'distill.dist(1.0)'  # beside the whole of the labels
FLIP = {'augment': ('flip',)}
STUDENTS = {
  'tiny3k': {'conv': (4, 8), 'hidden': (16,)},
  'student12k': {'conv': (8, 16), 'hidden': (32,)},
  'middle47k': {'conv': (16, 32), 'hidden': (64,)},
}
FAST = 8e-3  # of 2, 4, 8 and 16e-3 the best for student12k alone
NEXT = 'middle47k'
CALM = 'calm'  # BIG trained on flipped images and smooth labels
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
FEWER = {  # seeds of what costs much or says little
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
LIKE = {'kd': 'kd_mild', 'dist': 'dist'}  # of the gap's, among the losses
WIDTHS = {  # bits of weights and of activations
  'w4a8': 'quantize.lsq(4, 8)',
  'w4a4': 'quantize.lsq(4, 4)',
  'w2a2': 'quantize.lsq(2, 2)',
  'w1a1': 'binary.bnn(ends=False)',  # of a network in the form for signs
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
  # Images do not change, so that a teacher answers once for all epochs.
  config.train = settings.training(epochs=10)
  config.finetune = settings.training(epochs=10, lr=FAST)
  config.helper = TEACH
  losses, gap, low, helped = _losses(), _gap(), _apprentice(), _helped()
  config.recipes = losses | gap | low | helped
  for seeds, names in FEWER.items():
    for name in names:
      config.recipes[name].seeds = seeds
  config.networks = {
    BIG: settings.network(BIG, epochs=16, recipes=(*helped,)),
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
  # Two of the gap's recipes are among the losses.
  rest = (name for name in gap if not name.endswith(BIG))
  signs = tuple(name for name in low if name.startswith('w1a1'))
  grids = (name for name in low if name not in signs)
  config.networks.student12k.recipes = (*losses, *rest, *grids)
  sizes = {'conv': (8, 16), 'hidden': (32,)}
  config.networks.signs12k = settings.network(
    'binary_tsukijinet', sizes=sizes, train={'lr': FAST}, recipes=signs
  )
  config.figures = _figures()
  return _tiny(config) if arg == 'tiny' else config


def _taught(method: str, *teachers: str, **more: object) -> ConfigDict:
  """Return a recipe from new weights, taught by other networks."""
  changes = {'start': 'fresh', 'teacher': teachers, **more}
  return settings.compression(method, 'distill', **changes)


def _alone(method: str, family: str, **more: object) -> ConfigDict:
  """Return a recipe without any teacher."""
  return settings.compression(method, family, use_helper=False, **more)


def _losses() -> dict[str, ConfigDict]:
  """Return the student with each loss, and what else may be the reason."""
  found = {
    name: _taught(x, BIG, **({} if x == DIST else HEAVY))
    for name, x in LOSSES.items()
  }
  # The answers alone, from one teacher and from an ensemble.
  found['kd_no_labels'] = _taught('distill.kd(2.0)', BIG, label_weight=0.0)
  found['kd_ensemble'] = _taught(
    'distill.kd(2.0)', BIG, 'vgg', label_weight=0.0
  )
  # FitNets: hints alone first.
  hints = 'distill.fitnet("conv2")'
  found['hints_first'] = _taught(hints, BIG, label_weight=0.0, epochs=3)
  found['fitnet'] = found['kd'].copy_and_resolve_references()
  found['fitnet'].update(start='hints_first', epochs=7)
  # Longer, and on images that change, with and without.
  fresh = {'start': 'fresh', 'role': 'control_scratch'}
  for name, more in (('30', {'epochs': 30}), ('flip', {'train': FLIP})):
    found[f'kd_{name}'] = _taught(MILD, BIG, **more, **HEAVY)
    found[f'alone_{name}'] = _alone('', 'distill', **more, **fresh)
  # A teacher that is less sure of the images it has learned, and soft labels
  # that no teacher has chosen.
  for name, epochs in (('', 10), ('_30', 30)):
    found[f'kd_calm{name}'] = _taught(
      'distill.kd(1.0)', CALM, label_weight=0.0, epochs=epochs
    )
    smooth = {'label_smoothing': 0.1, 'epochs': epochs, **fresh}
    found[f'smoothed{name}'] = _alone('', 'distill', **smooth)
  return found


def _gap() -> dict[str, ConfigDict]:
  """Return every student under every teacher, by KD and by DIST."""
  kinds = {'kd': (MILD, HEAVY), 'dist': (DIST, {})}
  return {
    f'{kind}_of_{teacher}': _taught(text, teacher, **weights)
    for teacher in TEACHERS
    for kind, (text, weights) in kinds.items()
  }


def _apprentice() -> dict[str, ConfigDict]:
  r"""Return low precision alone and by the schemes of Mishra & Marr 2018.

  A: the teacher learns in the same steps; B: it is trained, and the student
  starts from new weights; C: both are trained, and the student is fine-tuned.
  Their $\beta = \gamma = 0.5$ are equal weights of labels and teacher, at
  temperature 1. The teacher has four times the parameters, as theirs.
  """
  found = {}
  for width, method in WIDTHS.items():
    text = f'{method} >> distill.kd(1.0)'
    fresh = {'epochs': 6, 'start': 'fresh', 'mode': 'qat'}
    tuned = {'epochs': 3, 'start': 'dense', 'mode': 'qat', 'lr': 2e-3}
    found[f'{width}_alone'] = _alone(method, 'quantize', **fresh)
    found[f'{width}_tuned'] = _alone(method, 'quantize', **tuned)
    found[f'{width}_A'] = _taught(text, NEXT, train_teacher=True, **fresh)
    found[f'{width}_B'] = _taught(text, NEXT, **fresh)
    found[f'{width}_C'] = _taught(text, NEXT, **tuned)
  return found


def _helped() -> dict[str, ConfigDict]:
  """Return compression with and without the helper of the config."""
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
    found[f'{name}_alone'] = _alone(text, family, **more)
  return found


def _figures() -> dict[str, ConfigDict]:
  """Return what is drawn beside the figures of every report."""
  lines = {'alone': '|'.join(f'{name}/dense' for name in STUDENTS)}
  for teacher in TEACHERS:
    for kind, label in (('kd', 'KD'), ('dist', 'DIST')):
      more = f'|student12k/{LIKE[kind]}' if teacher == BIG else ''
      lines[f'{label} from {teacher}'] = f'.*/{kind}_of_{teacher}{more}'
  schemes = {
    'from scratch': 'alone',
    'fine-tuned': 'tuned',
    'A, taught beside': 'A',
    'B, taught from scratch': 'B',
    'C, taught in fine-tuning': 'C',
  }
  longer = {
    'alone': 'alone',
    'smooth labels': 'smoothed',
    'labels and teacher': 'kd',
    'a calmer teacher alone': 'kd_calm',
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
  """Return what the tasks without a softmax share: five seeds of digits."""
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
  """Return the regression task: by how much a digit was turned."""
  title = 'Distillation of a regression: the angle of turned digits'
  config = _digits(title, 'digits_angle', 'squared_error')
  texts = {
    'squared': ('distill.mse()', 1.0),
    'bounded': ('distill.bounded(0.0, 1.0)', 1.0),
    'trusted': ('distill.trusted(0.3)', 0.0),
    'hint': ('distill.fitnet("conv2", weight=0.1)', 1.0),
  }
  config.recipes = {
    name: _taught(text, 'teacher', label_weight=labels)
    for name, (text, labels) in texts.items()
  }
  return config


def _retrieval() -> ConfigDict:
  """Return the embedding task: the nearest digit is the same digit."""
  title = 'Distillation of an embedding: the nearest of the digits'
  config = _digits(title, 'digits', 'triplet')
  config.networks.teacher.outputs = 32
  config.networks.student.outputs = 8  # relations ask for no equal size
  config.recipes = {
    'relations': _taught('distill.rkd()', 'teacher'),
    'relations_alone': _taught('distill.rkd()', 'teacher', label_weight=0.0),
    'distances': _taught('distill.rkd(angle=0.0)', 'teacher'),
    'angles': _taught('distill.rkd(distance=0.0)', 'teacher'),
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
