r"""Binary layers in integers: popcounts, and norms as thresholds.

A layer with binary weights and inputs sums integers (`popcount`). If another
binary layer follows, everything in between (scale, bias, norm, activation) is
one comparison of that integer: for a norm,
$\mathrm{sign}(\gamma (a - \mu) / \sigma + \beta)$ changes at
$\mu - \beta \sigma / \gamma$, downwards if $\gamma < 0$.
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
  """The integer at which a sign changes, by channel.

  Attributes:
    least: The smallest integer of the other sign, `[channels]` int32.
    rising: Whether the sign is +1 from there on, else below, `[channels]`.
  """

  least: Array
  rising: Array

  def __call__(self, sums: Array) -> Array:
    """Return True for +1, the shape of `sums` `[..., channels]`."""
    return (sums >= self.least) == self.rising


def threshold(fn: Stage, size: int, channels: int) -> Threshold | None:
  """Return the threshold at which the sign of a function changes.

  The function is evaluated at every integer, so that its rounding is exact.

  Args:
    fn: Float32 `[integers, channels]` to the same shape.
    size: The integers are those in [-size, size].
    channels: Number of channels.

  Returns:
    The threshold, or None if a sign changes more than once.

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
  """Return the layers with binary weights and inputs, each as a network.

  Args:
    spec: The network.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.

  Returns:
    Networks of one layer, by its name; they take the same `variables`.
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
  """Return a network whose binary layers use popcounts.

  Sums of products of signs are exact integers; a norm between two binary layers
  becomes a threshold. Everything else is computed in float32, as by
  `artefact.forward`.

  Args:
    spec: The network, including norms that `lower` does not fold.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.
    counted: Names of the layers that use popcounts, of `layers`; None for all.

  Returns:
    `[batch, *spec.input_shape]` images to float32 logits, jitted; the logits of
    the float network to float error.

  Raises:
    ValueError: If a layer in `counted` is not binary.
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
  """The frozen nodes, decoded variables and popcount layers of a network."""

  params: Any
  dense: dict[str, Any]
  counted: frozenset[str] = frozenset()

  def counting(self, layer: Layer) -> Signed | None:
    """Return the weight of a layer, if it uses popcounts."""
    here = getattr(layer, 'name', None) in self.counted
    return self.signed(layer) if here else None

  def signed(self, layer: Layer) -> Signed | None:
    """Return the weight of a layer, if its weight and input are binary."""
    if not isinstance(layer, Conv | Dense):
      return None
    node = self.params[layer.name]['kernel']
    signs = isinstance(node, Signed) and isinstance(node.w, Binarized)
    ungrouped = isinstance(layer, Dense) or layer.groups == 1
    return node if signs and ungrouped else None

  def plain(self, layer: Layer) -> Stage:
    """Return a layer in float32."""
    one = Spec(name='one', input_shape=(), layers=(layer,))
    run: Callable[..., Any] = Net(one).apply
    names = _names(layer)
    own = {k: v for k, v in self.params.items() if k in names}
    return lambda x: grids.apply(lambda: run(self.dense, x), own)[0]

  def valued(self, layer: Conv | Dense) -> Callable[..., Array]:
    """Return the function from the sums of a binary layer to its output."""
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
  """Yield the stages that compute layers in order; one may compute several."""
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
      if node.sized:  # the output also depends on the input
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
  """Return the sums of a binary layer from signs or floats."""
  signs = x if x.dtype == bool else node.transform_input(x) > 0
  if isinstance(layer, Conv):
    return popcount.conv(signs, weight, layer)
  return popcount.dense(signs, weight)


def _sized(
  layer: Conv | Dense, sums: Stage, valued: Callable[..., Array], x: Array
) -> Array:
  """Return the output of a binary layer scaled by its input's magnitude."""
  if isinstance(layer, Dense):
    return valued(sums(x), grids.mean(jnp.abs(x)))
  window = (layer.kernel, layer.strides, layer.padding)
  return valued(sums(x), grids.mean(jnp.abs(x), *window))


def _reach(layers: tuple[Layer, ...]) -> int:
  """Return the number of layers before the next one with weights."""
  weights = Conv | Dense | Branch
  found = (i for i, x in enumerate(layers) if isinstance(x, weights))
  return next(found, len(layers))


def _folded(
  layer: Conv | Dense,
  between: tuple[Layer, ...],
  after: tuple[Layer, ...],
  network: _Network,
) -> list[Stage]:
  """Return stages from sums to the next layer's signs; [] if there are none."""
  follower = network.counting(after[0]) if after else None
  if follower is None or follower.sized:
    return []
  left = [x for x in between if not isinstance(x, Dropout)]
  pools = [x for x in left if isinstance(x, Pool) and x.kind == 'max']
  inner = [x for x in left if isinstance(x, Norm | Act | PReLU)]
  flat = [x for x in left if isinstance(x, Flatten)]
  turn = follower.threshold
  # A maximum commutes with monotone functions, but not with part of one, and
  # the thresholds of a dense layer's inputs are not one per channel.
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
