"""Every method once, on handwritten digits: size and speed of the files.

  python main.py --config=configs/methods.py --workdir=runs/methods
  A=runs/methods/artefacts
  python -m benchmarks.deploy $A/tsukijinet2021-0-dense.tsk $A/*.tsk \\
    --out=results/methods.json

The settings are not tuned: the other studies show the accuracy of the methods.
About ten minutes on 2 cores.
"""

import re

from ml_collections import ConfigDict

from tsukiji import settings

# By family; a recipe is named after its method, with an underscore.
METHODS = {
  'prune': (
    'prune.auto(0.9)',
    'prune.blocks(0.5, (4, 4))',
    'prune.l0(1.0, sparsity=0.8)',
    'prune.movement(0.9)',
    'prune.obs(0.8)',
    'prune.n_m(2, 4)',
    'prune.rigl(0.9)',
    'prune.threshold(1.0)',
    'prune.lottery_ticket(0.9, rewind_at=0.1, rounds=2)',
    'prune.variational(1.0, sparsity=0.9)',
    'prune.weights(0.9, scope="global")',
    'regularize.l1(1e-4) >> prune.weights(0.9, scope="global")',
    'regularize.l2(1e-4) >> prune.weights(0.9, scope="global")',
    'regularize.shrink(1e-3) >> prune.weights(0.9, scope="global")',
  ),
  'channels': (
    'prune.filters(macs=0.5, scope="auto")',
    'prune.neurons(0.5)',
    'regularize.group_lasso(1e-3) >> prune.filters(macs=0.5, scope="auto")',
  ),
  'quantize': (
    'quantize.adaround(4, 8)',
    'quantize.auto(bits=4.0)',
    'quantize.bias_correction(quantize.uniform(4, 8))',
    'quantize.dorefa(4, 4)',
    'quantize.cross_layer_equalization() >> quantize.uniform(8, 8)',
    'quantize.fold_batch_norm(quantize.uniform(8, 8))',
    'quantize.gptq(4, 8)',
    'quantize.gradients(8) >> quantize.uniform(8, 8)',
    'quantize.uniform(4, 8)',
    'quantize.half()',
    'quantize.int8()',
    'quantize.delay(0.5) >> quantize.uniform(4, 4)',
    'quantize.lsq(4, 4)',
    'quantize.pact(4, 4)',
    'quantize.ternary()',
    'regularize.entropy(0.1) >> quantize.lsq(4)',
  ),
  'binary': ('binary.loss_aware()', 'binary.react()', 'binary.weights()'),
  'lowrank': (
    'lowrank.auto(macs=0.5)',
    'only("conv2/kernel", lowrank.cp(16))',
    'lowrank.learned_rank(1.0, of="macs")',
    'lowrank.plus_sparse(4, 0.9)',
    'lowrank.svd(8)',
    'only("conv2/kernel", lowrank.tucker((16, 16)))',
  ),
  'share': ('share.hashed(0.1)', 'share.kmeans(16)', 'share.product(16, 4)'),
  'structured': (
    'structured.auto(0.5)',
    'only("dense1/kernel", structured.butterfly())',
    'only("dense1/kernel", structured.circulant(8))',
    'only("dense1/kernel", structured.fastfood())',
    'only("dense1/kernel", structured.toeplitz(2, 8))',
  ),
  'filters': (
    'structured.crelu()',
    'structured.crop()',
    'structured.multi_bias()',
    'structured.rotate()',
  ),
  'combined': (
    'admm(prune.weights(0.9), rounds=3)',
    'lc(lowrank.svd(8), rounds=3)',
  ),
}
# For a network with signed activations: after relu all inputs would be +1.
BINARY = (
  'binary.bnn(ends=False)',
  'binary.inputs(ends=False) >> binary.weights()',
  'binary.xnor()',
)


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is a few of them on a small network."""
  config = settings.default()
  config.title = 'Every method once'
  config.dataset.validation = 0.2
  config.train = settings.training(epochs=15, batch_size=64)
  config.finetune = settings.training(epochs=4, batch_size=64)
  config.recipes = {
    name_of(text): settings.compression(text, family)
    for family, texts in METHODS.items()
    for text in texts
  }
  binary = {name_of(x): settings.compression(x, 'binary') for x in BINARY}
  config.networks = {
    'tsukijinet2021': settings.network(
      'tsukijinet2021', recipes=tuple(config.recipes)
    ),
    'binary_tsukijinet': settings.network(
      'binary_tsukijinet', recipes=tuple(binary)
    ),
  }
  config.recipes.update(binary)
  if arg == 'tiny':
    config.train.epochs = config.finetune.epochs = 1
    sizes = {'conv': (4, 8), 'hidden': (16,)}
    wanted = ('prune_weights', 'quantize_half', 'share_kmeans')
    config.networks.tsukijinet2021.update(sizes=sizes, recipes=wanted)
    config.networks.binary_tsukijinet.update(sizes=sizes)
    config.recipes = {name: config.recipes[name] for name in (*wanted, *binary)}
    config.measure.repeats = 5
  return config


def name_of(text: str) -> str:
  """Return the name of a recipe: its first method.

  >>> name_of('only("conv2/kernel", lowrank.cp(16))')
  'lowrank_cp'
  """
  found = re.match(r'(?:only\("[^"]*", )?([\w.]+)\(', text)
  return found[1].replace('.', '_') if found else text
