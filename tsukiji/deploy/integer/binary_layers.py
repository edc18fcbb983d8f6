r"""Binary networks in integers: popcounts, and norms as thresholds.

A layer whose weights and inputs are signs sums integers (`popcount`), and
where signs follow again, all that lies between (scale, bias, norm, activation)
is one comparison of that integer: for a norm
$\mathrm{sign}(\gamma (a - \mu) / \sigma + \beta)$ turns at
$\mu - \beta \sigma / \gamma$, downwards where $\gamma < 0$.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import dataflow as grids
from compress import tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from compress.tree import Array
from tsukiji.deploy.decoding import decoded
from tsukiji.deploy.integer import popcount
from tsukiji.errors import expect
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.ops import max_pool
from tsukiji.models.spec import (
  Act,
  Branch,
  Conv,
  Dense,
  Dropout,
  Flatten,
  Layer,
  Norm,
  Pool,
  PReLU,
  Spec,
)

Stage: TypeAlias = Callable[[Array], Array]


@struct.dataclass
class Threshold:
  """Where a sign turns as an integer grows, by channel.

  Attributes:
    least: The first integer of the other sign, `[channels]` int32.
    rising: Whether the sign is +1 from there on, else below, `[channels]`.
  """

  least: Array
  rising: Array

  def __call__(self, sums: Array) -> Array:
    """Return True for +1, of the shape of `sums` `[..., channels]`."""
    return (sums >= self.least) == self.rising


def threshold(fn: Stage, size: int, channels: int) -> Threshold | None:
  """Return where the sign of a function of an integer turns.

  The function is asked at every integer, so that its own rounding decides.

  Args:
    fn: Float32 `[integers, channels]` to the same shape.
    size: The integers are those in [-size, size].
    channels: How many.

  Returns:
    The threshold, or None if a sign turns more than once.

  >>> threshold(lambda a: 3 - 2 * a, 4, 1)
  Threshold(least=Array([2], ...), rising=Array([False], dtype=bool))
  """
  sums = jnp.arange(-size, size + 1)[:, None]
  sums = jnp.broadcast_to(sums, (len(sums), channels))

  @jax.jit
  def turns() -> tuple[Threshold, Array]:
    up = fn(sums.astype(jnp.float32)) >= 0
    rising = up[-1] >= up[0]
    before = jnp.sum(up != rising, axis=0, dtype=jnp.int32)
    found = Threshold(before - size, rising)
    return found, jnp.all(found(sums) == up)

  found, right = turns()
  return found if bool(right) else None


def layers(spec: Spec, variables: dict[str, Any]) -> dict[str, Spec]:
  """Return the layers of signs met by signs, each a network of its own.

  Args:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.

  Returns:
    Networks of one layer by its name; they take the same `variables`.
  """
  network = _Network(tree.freeze(variables['params']), {})
  return {
    x.name: Spec(name=x.name, input_shape=before, layers=(x,))
    for x, before, _ in sp.walk(spec)
    if isinstance(x, Conv | Dense) and network.signed(x)
  }


def forward(
  spec: Spec,
  variables: dict[str, Any],
  counted: Collection[str] | None = None,
) -> Stage:
  """Return a network whose binary layers count bits.

  Where signs meet signs, the sums are integers, exact at any width; a norm
  between two such layers becomes a threshold. All else is computed in float32,
  as `artefact.forward` computes the whole.

  Args:
    spec: The network, with its norms (`lower` folds those that it can).
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.
    counted: Names of the layers that count bits, of `layers`; None for all.

  Returns:
    `[batch, *spec.input_shape]` images to float32 logits, jitted. They are
    those of the float network to float error: without scales its sums are the
    same integers.

  Raises:
    ValueError: If a layer that is to count bits has no signs.
  """
  can = tuple(layers(spec, variables))
  for name in counted or ():
    expect('binary.forward', name in can, f'a layer of {can}', name)
  network = _Network(
    tree.freeze(variables['params']),
    {**variables, 'params': decoded(variables['params'])},
    frozenset(can if counted is None else counted),
  )
  return jax.jit(_joined(_stages(spec.layers, network)))


class _Network(NamedTuple):
  """The frozen nodes of a network, its decoded variables, and who counts."""

  params: Any
  dense: dict[str, Any]
  counted: frozenset[str] = frozenset()

  def counting(self, layer: Layer) -> Signed | None:
    """Return the weight of a layer, if it is one that counts bits."""
    here = getattr(layer, 'name', None) in self.counted
    return self.signed(layer) if here else None

  def signed(self, layer: Layer) -> Signed | None:
    """Return the weight of a layer, if it is one of signs met by signs."""
    if not isinstance(layer, Conv | Dense):
      return None
    node = self.params[layer.name]['kernel']
    signs = isinstance(node, Signed) and isinstance(node.w, Binarized)
    whole = isinstance(layer, Dense) or layer.groups == 1
    return node if signs and whole else None

  def plain(self, layer: Layer) -> Stage:
    """Return a layer in float32."""
    one = Spec(name='one', input_shape=(), layers=(layer,))
    run: Callable[..., Any] = Net(one).apply
    names = _names(layer)
    own = {k: v for k, v in self.params.items() if k in names}
    return lambda x: grids.apply(lambda: run(self.dense, x), own)[0]

  def valued(self, layer: Conv | Dense) -> Callable[..., Array]:
    """Return what makes the output of a binary layer of its sums."""
    scale = self.params[layer.name]['kernel'].w.scale
    bias = self.params[layer.name].get('bias')

    def value(sums: Array, gain: Array | None = None) -> Array:
      x = sums.astype(jnp.float32)
      x = x if scale is None else x * scale
      x = x if gain is None else x * gain
      return x if bias is None else x + bias

    return value


def _names(layer: Layer) -> set[str]:
  """Return the names of a layer and of those inside it."""
  if isinstance(layer, Branch):
    return {n for path in layer.paths for one in path for n in _names(one)}
  return {getattr(layer, 'name', '')}


def _joined(stages: Iterator[Stage]) -> Stage:
  listed = list(stages)
  return lambda x: functools.reduce(lambda x, stage: stage(x), listed, x)


def _stages(layers: tuple[Layer, ...], network: _Network) -> Iterator[Stage]:
  """Yield what computes layers in order, several of them at once at times."""
  at = 0
  while at < len(layers):
    layer = layers[at]
    node = network.counting(layer)
    at += 1
    if isinstance(layer, Branch):
      yield _branched(layer, network)
    elif node is None:
      yield network.plain(layer)
    else:
      assert isinstance(layer, Conv | Dense)
      weight = popcount.packed(node.w.signs)
      sums = functools.partial(_sums, layer, node, weight)
      if node.sized:  # by its input: no function of the integer alone
        yield functools.partial(_sized, layer, sums, network.valued(layer))
        continue
      yield sums
      end = at + _reach(layers[at:])
      folded = _folded(layer, layers[at:end], layers[end:], network)
      yield from folded or [network.valued(layer)]
      at = end if folded else at


def _branched(layer: Branch, network: _Network) -> Stage:
  paths = [_joined(_stages(path, network)) for path in layer.paths]

  def run(x: Array) -> Array:
    outs = [path(x) for path in paths]
    if layer.merge == 'concat':
      return jnp.concatenate(outs, axis=-1)
    return sum(outs[1:], outs[0])

  return run


def _sums(
  layer: Conv | Dense, node: Signed, weight: popcount.Packed, x: Array
) -> Array:
  """Return the integers of a binary layer, of signs or of floats."""
  signs = x if x.dtype == bool else node.transform_input(x) > 0
  if isinstance(layer, Conv):
    return popcount.conv(signs, weight, layer)
  return popcount.dense(signs, weight)


def _sized(
  layer: Conv | Dense, sums: Stage, valued: Callable[..., Array], x: Array
) -> Array:
  """Return the output of a binary layer whose sums its input's size scales."""
  if isinstance(layer, Dense):
    return valued(sums(x), grids.mean(jnp.abs(x)))
  window = (layer.kernel, layer.strides, layer.padding)
  return valued(sums(x), grids.mean(jnp.abs(x), *window))


def _reach(layers: tuple[Layer, ...]) -> int:
  """Return how many layers come before the next weight."""
  weights = Conv | Dense | Branch
  found = (i for i, x in enumerate(layers) if isinstance(x, weights))
  return next(found, len(layers))


def _folded(
  layer: Conv | Dense,
  between: tuple[Layer, ...],
  after: tuple[Layer, ...],
  network: _Network,
) -> list[Stage]:
  """Return what makes the next layer's signs of sums; [] if nothing does."""
  follower = network.counting(after[0]) if after else None
  if follower is None or follower.sized:
    return []
  left = [x for x in between if not isinstance(x, Dropout)]
  pools = [x for x in left if isinstance(x, Pool) and x.kind == 'max']
  inner = [x for x in left if isinstance(x, Norm | Act | PReLU)]
  flat = [x for x in left if isinstance(x, Flatten)]
  turn = follower.threshold
  # A maximum passes through what is monotone, but not from its middle; and
  # what turns each input of a dense layer is not one number a channel.
  early = left == [*pools, *inner, *flat]
  late = left == [*inner, *pools, *flat]
  if not (early or late) or (flat and turn is not None):
    return []
  values = [network.valued(layer), *map(network.plain, inner)]
  if turn is not None:
    values.append(lambda x: x - turn)
  *taps, channels = network.params[layer.name]['kernel'].w.signs.shape
  turns = threshold(_joined(iter(values)), math.prod(taps), channels)
  if turns is None:
    return []
  pooled = [_pooled(x) for x in pools]
  ends: list[Stage] = [lambda x: x.reshape(len(x), -1) for _ in flat]
  order: list[list[Stage]] = [pooled, [turns]] if early else [[turns], pooled]
  return [*order[0], *order[1], *ends]


def _pooled(layer: Pool) -> Stage:
  return lambda x: max_pool(x, layer.window, layer.strides)
