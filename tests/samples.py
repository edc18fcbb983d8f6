"""The recipes that the laws are held to: every method, and chains of them."""

import itertools
import re
from collections.abc import Iterable

# Every row of `recipe.TABLE` that makes a method; the first text of each goes
# into chains.
SAMPLES = {
  'binary.bnn': ('binary.bnn(stochastic=True)',),
  'binary.inputs': ('binary.inputs(threshold=True)',),
  'binary.loss_aware': ('binary.loss_aware(scale="filter")',),
  'binary.react': ('binary.react(ends=True)',),
  'binary.weights': ('binary.weights(scale="layer")',),
  'binary.xnor': ('binary.xnor(ends=True)',),
  'distill.attention': ('distill.attention("conv", "norm")',),
  'distill.dist': ('distill.dist(2.0)',),
  'distill.dkd': ('distill.dkd(2.0)',),
  'distill.fitnet': ('distill.fitnet("norm", "conv")',),
  'distill.kd': ('distill.kd(2.0, temperature_schedule=linear())',),
  'distill.probe': ('distill.probe("conv")',),
  'distill.rkd': ('distill.rkd("fc", "conv")',),
  'distill.mse': ('distill.mse(schedule=linear(0.0, 0.2))',),
  'admm': (
    'admm(prune.weights(0.6) >> quantize.uniform(4), rounds=3, '
    'finetune_at=0.5)',
  ),
  'lc': ('lc(lowrank.svd(2), mu=0.1, rounds=6, finetune_at=1.0)',),
  'lowrank.auto': (
    'lowrank.auto(macs=0.8, candidates=3)',
    'lowrank.auto(size=0.8, sensitivity="operator", goal="max")',
  ),
  'lowrank.cp': ('lowrank.cp(3, sweeps=5)',),
  'lowrank.learned_rank': (
    'lowrank.learned_rank(1.0, of="macs", mu=1.0, rounds=3, finetune_at=0.5)',
  ),
  'lowrank.plus_sparse': (
    'lowrank.plus_sparse(2, 0.8, sweeps=2)',
    'lowrank.plus_sparse(2, 0.5, examples=0) >> quantize.uniform(4, 6)',
  ),
  'lowrank.svd': (
    'lowrank.svd(2)',
    'lowrank.svd(0.8, fold="spatial") >> quantize.uniform(4, 6)',
  ),
  'lowrank.tucker': ('lowrank.tucker((1, 3)) >> quantize.half()',),
  'only': (
    'only("fc/kernel", quantize.uniform(3, 4))',
    'only("(conv|fc)/.*", prune.weights(0.25))',
  ),
  'prune.auto': (
    'prune.auto(0.6, candidates=4, floor=0.1, schedule=cubic(0.0, 0.5))',
  ),
  'prune.blocks': ('prune.blocks(0.5, (3, 2), scope="global")',),
  'prune.filters': ('prune.filters(share=0.5, multiple=1)',),
  'prune.l0': ('prune.l0(5.0, sparsity=0.6, freeze_at=0.5)',),
  'prune.movement': ('prune.movement(0.5, schedule=cubic(0.0, 0.5))',),
  'prune.obs': ('prune.obs(0.4, block=8, rounds=1)',),
  'prune.n_m': ('prune.n_m(2, 4)',),
  'prune.rigl': ('prune.rigl(0.5, distribution="uniform")',),
  'prune.threshold': ('prune.threshold(0.7)',),
  'prune.lottery_ticket': (
    'prune.lottery_ticket(0.6, rewind_at=0.1, rounds=2)',
  ),
  'prune.variational': ('prune.variational(0.5, sparsity=0.55)',),
  'prune.weights': (
    'prune.weights(0.6, scope="global", schedule=cubic(0.0, 0.5))',
    'prune.weights(0.35, score="fisher")',
    'prune.weights(0.5, score="taylor", schedule=steps(2))',
  ),
  'quantize.adaround': ('quantize.adaround(3, steps=20)',),
  'quantize.auto': ('quantize.auto(bits=4.0, choices=(2, 4, 8))',),
  'quantize.bias_correction': (
    'quantize.bias_correction(quantize.uniform(3, 5), examples=16)',
  ),
  'quantize.dorefa': ('quantize.dorefa(3, 5)',),
  'quantize.cross_layer_equalization': (
    'quantize.cross_layer_equalization(sweeps=2)',
  ),
  'quantize.fold_batch_norm': (
    'quantize.fold_batch_norm(quantize.uniform(3, 5, per="tensor"))',
  ),
  'quantize.gptq': ('quantize.gptq(4, 6)',),
  'quantize.gradients': ('quantize.gradients(4) >> quantize.uniform(4, 6)',),
  'quantize.uniform': (
    'quantize.uniform(4)',
    'quantize.uniform(12, 6)',
    'quantize.uniform(3, 5, per=4, symmetric=False, clip="mse")',
  ),
  'quantize.half': ('quantize.half("bfloat16")',),
  'quantize.int8': ('quantize.int8()',),
  'quantize.delay': ('quantize.delay(0.5) >> quantize.uniform(3, 4)',),
  'quantize.lsq': ('quantize.lsq(3, 5)', 'quantize.lsq(3, per=4)'),
  'quantize.pact': ('quantize.pact(4, 5)',),
  'quantize.ternary': ('quantize.ternary(per="tensor")',),
  'regularize.group_lasso': ('regularize.group_lasso(0.01)',),
  'regularize.l1': ('regularize.l1(0.01, schedule=linear(0.0, 0.5))',),
  'regularize.l2': ('regularize.l2(0.01)',),
  'regularize.entropy': ('regularize.entropy(0.1) >> quantize.lsq(4)',),
  'regularize.shrink': ('regularize.shrink(0.1)',),
  'share.hashed': ('share.hashed(0.3)',),
  'share.kmeans': ('share.kmeans(3)', 'share.kmeans(bits=2, start="density")'),
  'share.product': ('share.product(3, 2, codebooks=2)',),
  'structured.auto': ('structured.auto(0.5, sensitivity="energy")',),
  'structured.circulant': ('structured.circulant(4, pad=True)',),
  'structured.toeplitz': ('structured.toeplitz(1, 4, pad=True)',),
  'structured.crelu': ('structured.crelu()',),
  'structured.crop': ('structured.crop()',),
  'structured.multi_bias': ('structured.multi_bias()',),
  'structured.rotate': ('structured.rotate()',),
}
# Methods that say which share of the weights they prune.
SHARE = re.compile(
  r'prune\.(?:auto|l0|lottery_ticket|movement|obs|rigl|variational|weights)'
  r'\((?:[.\d]+, sparsity=)?([.\d]+)'
)
WHOLE = re.compile('global|auto|l0|variational')  # over all layers
FIRST = ('prune.filters',)  # it cuts plain arrays
# Those that cannot train the tiny classifier: one shrinks no layer before a
# norm (test_neurons), two are for regression (test_regress), and tiles of two
# are smaller only for large weights (test_structured).
ELSEWHERE = {
  'prune.neurons',
  'distill.bounded',
  'distill.trusted',
  'structured.butterfly',
  'structured.fastfood',
}
# At most one method of each kind on one weight.
CLAIMS = (
  [name for name in SAMPLES if name.startswith('prune') and name not in FIRST],
  [
    name
    for name in SAMPLES
    if name.startswith(('binary.w', 'quantize', 'share'))
  ],
)
# Masks and grids are on their factors, under other paths than the weights'.
FACTORED = tuple(name for name in SAMPLES if name.startswith('lowrank'))
MADE = ('structured',)  # of plain arrays: no mask inside or outside
# One of each family is chained with one of each; the others stand before the
# grid, and beside the masks that most of them do not go with.
# Like `only`, what differs from `regularize.l1` in its penalty alone is not.
ALONE = (
  # Losses alone, as distill.kd is.
  *(f'distill.{name}' for name in ('attention', 'dist', 'dkd')),
  *(f'distill.{name}' for name in ('mse', 'probe', 'rkd')),
  *('binary.bnn', 'binary.react', 'binary.xnor'),  # of parts that are here
  *('admm', 'lc'),  # of a method, as `only`
  *('share.hashed', 'share.product'),
  *(name for name in FACTORED if name != 'lowrank.svd'),
  'binary.loss_aware',  # its nodes are those of binary.weights
  *('structured.auto', 'structured.toeplitz'),  # so are these: circulant's
  *(
    'structured.crelu',
    'structured.crop',
    'structured.multi_bias',
  ),  # and rotate's
  *(
    'only',
    'regularize.group_lasso',
    'regularize.l2',
    'quantize.cross_layer_equalization',
  ),
  'regularize.entropy',  # it needs a grid beside it
)
FAMILIES = ('distill.kd', 'prune.weights', 'quantize.int8')
# Quantizers differ in the grid alone: all but two meet a mask and no more.
GRIDS = [
  name
  for name in SAMPLES
  if name.startswith('quantize')
  and name not in ('quantize.uniform', *FAMILIES, *ALONE)
]
PAIRS = [
  *(('prune.weights', name) for name in GRIDS),
  *((name, 'quantize.int8') for name in GRIDS),
  *(
    (one, other)
    for one, other in itertools.product(SAMPLES, repeat=2)
    if not {one, other} & {*ALONE, *GRIDS}
    and (
      {one, other} <= {*FAMILIES}
      or other == 'quantize.int8'
      or 'prune.weights' in (one, other)
    )
  ),
]
REFUSED = [
  (one, other)
  for one, other in PAIRS
  if any(one in claim and other in claim for claim in CLAIMS)
  or (other in FIRST and one.startswith(('binary', 'prune', 'quantize')))
  or (other in FACTORED and one.startswith('prune'))
  or (one in ('binary.weights', 'share.kmeans') and other.startswith('prune'))
  or (one.startswith(MADE) and other.startswith('prune'))
  or (other.startswith(MADE) and one.startswith('prune'))
]


def chained(pairs: Iterable[tuple[str, str]]) -> list[str]:
  """Return the chains of the first samples of pairs of methods."""
  return [f'{SAMPLES[one][0]} >> {SAMPLES[other][0]}' for one, other in pairs]


CHAINS = chained(pair for pair in PAIRS if pair not in REFUSED)
# The others are long runs: `make test-slow` holds them to the same laws.
QUICK_CHAINS = chained(itertools.permutations(FAMILIES, 2))
TEXTS = ['', *itertools.chain(*SAMPLES.values()), *CHAINS]
# Compiling a step takes seconds, so that the others are held to one shot.
LIVELY = re.compile(
  r'prune.(filters|l0|lottery_ticket|movement|variational|weights).* >> '
  r'quantize.(uniform|int8|lsq)'
  '|filters.* >> prune.weights|^distill.* >> quantize'
)
TRAINED = [text for text in CHAINS if LIVELY.search(text)]
