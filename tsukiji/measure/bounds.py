"""What a network will at least cost, from its layers and its recipe alone.

Microseconds of arithmetic, so that a search may ask for thousands of
candidates which of them cannot fit and need no training.
"""

import ast
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

Args: TypeAlias = list[Any]
Keywords: TypeAlias = dict[str, Any]

FLOAT = 32.0
FILE = 256.0  # bytes that any file has beside its weights: operations, names
CODED = (
  0.7  # of the bits of a grid, which is what a range coder leaves at least
)
# Channels and factors of half of the MACs may have as few of the weights.
LEAN = 0.5
# Methods whose weights have a known number of bits.
GRIDS: dict[str, Callable[[float], float]] = {
  'quantize.int8': lambda _: 8.0,
  'quantize.lsq': lambda bits: bits,
  'quantize.uniform': lambda bits: bits,
  'share.kmeans': lambda values: math.log2(values),
}
SMALLER = ('prune.filters', 'lowrank.auto')  # to a part of the MACs
NEUTRAL = ('distill.', 'regularize.', 'cubic', 'linear', 'steps', 'at_once')


def least(
  spec: Spec, method: str = '', float_bits: int = 0
) -> dict[str, float]:
  """Return the least costs of a network under a recipe.

  Args:
    spec: Its layers, those of the zoo.
    method: A recipe without placeholders. One of whose methods is not known
      here has no least number of parameters and bytes.
    float_bits: Significant bits of floats in the file; 0 for all.

  Returns:
    `macs` of an example and `params`, the numbers stored; `bytes`, those of
    the codes of the weights, and `FILE`; `flash`, those of a C file, whose
    codes are not compressed.

  >>> layers = (sp.Flatten(), sp.Dense(name='fc', features=3))
  >>> net = Spec(name='n', input_shape=(2, 2, 1), layers=layers)
  >>> least(net, 'quantize.int8()')
  {'macs': 12.0, 'params': 12.0, 'bytes': 264.4, 'flash': 12.0}
  """
  weights = macs = 0
  for step in sp.walk(spec):
    count, places = _product(step)
    weights, macs = weights + count, macs + count * places
  found: dict[str, float] = {'macs': macs, 'params': weights}
  width = float_bits or FLOAT  # one bit less, but a sign
  found |= {'bytes': weights / 8 * width, 'flash': weights / 8 * FLOAT}
  for name, args, keywords in _calls(method):
    first = args[0] if args and isinstance(args[0], int | float) else 1.0
    if name in GRIDS:
      bits = min(GRIDS[name](first), FLOAT)
      found['bytes'] *= min(1.0, CODED * bits / width)
      found['flash'] *= bits / FLOAT
    elif name in SMALLER and isinstance(keywords.get('macs'), float):
      found = {k: LEAN * keywords['macs'] * v for k, v in found.items()}
    elif name == 'prune.weights':
      found['bytes'] *= CODED * (1 - first)
      found['flash'] *= 1 - first
    elif not name.startswith(NEUTRAL):
      return dict.fromkeys(found, 0.0)
  found['bytes'] += FILE
  return {k: float(v) for k, v in found.items()}


def _product(step: sp.Step) -> tuple[int, int]:
  """Return the weights of a layer, and how often an example meets each."""
  layer, channels = step.layer, step.before[-1]
  if isinstance(layer, sp.Conv):
    inputs = math.prod(layer.kernel) * channels // layer.groups
    return inputs * layer.features, math.prod(step.after[:2])
  return (
    (channels * layer.features, 1) if isinstance(layer, sp.Dense) else (0, 0)
  )


def _calls(method: str) -> Iterator[tuple[str, Args, Keywords]]:
  """Yield the name and arguments of each method of a recipe."""
  try:
    tree = ast.parse(method.strip() or '()', mode='eval')
  except SyntaxError:  # a name as 'package.module:function'
    yield method, [], {}
    return
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      keywords = {k.arg: _value(k.value) for k in node.keywords if k.arg}
      yield ast.unparse(node.func), [_value(x) for x in node.args], keywords


def _value(node: ast.AST) -> Any:
  try:
    return ast.literal_eval(node)
  except ValueError:  # a call, which is yielded by itself
    return None
