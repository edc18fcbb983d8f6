"""Compact filters: small convolutions in place of a large one.

The network is rewritten, starts from the trained kernels where a closed form
splits them, and `distill.kd` trains it with the dense network as teacher.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import tree
from tsukiji.errors import expect
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import Act, Branch, Conv, Layer, Spec

NARROW = 4  # divisor of the outputs of a bottleneck and a squeeze


class Kind(NamedTuple):
  """A form of a convolution as smaller ones.

  Attributes:
    layers: The convolution and its input channels -> the layers for it.
    split: Its kernel -> the kernels of those by the suffixes of their names;
      None if there is no closed form.
  """

  layers: Callable[[Conv, int], tuple[Layer, ...]]
  split: Callable[[np.ndarray], dict[str, np.ndarray]] | None


def separable(conv: Conv, channels: int) -> tuple[Layer, ...]:
  """Return one filter a channel, then 1 x 1 (MobileNet).

  Howard+ 2017, arXiv 1704.04861, section 3.1, without a norm and activation
  between the two: so they are the trained kernel with one pattern a channel.
  """
  depth = dataclasses.replace(
    conv, name=f'{conv.name}_depth', features=channels, groups=channels
  )
  return dataclasses.replace(depth, bias=False), _point(conv, conv.name)


def split_separable(kernel: np.ndarray) -> dict[str, np.ndarray]:
  r"""Return the nearest kernels: the first singular triple of each channel.

  $K_{hwio} \approx d_{hwi} p_{io}$, exact for kernels that are separable.
  """
  height, width, channels, features = kernel.shape
  matrices = kernel.transpose(2, 0, 1, 3).reshape(channels, -1, features)
  u, s, vt = np.linalg.svd(matrices, full_matrices=False)
  root = np.sqrt(s[:, :1])
  depth = (u[:, :, 0] * root).T.reshape(height, width, 1, channels)
  return {'_depth': depth, '': (vt[:, 0] * root)[None, None]}


def bottleneck(conv: Conv, channels: int) -> tuple[Layer, ...]:
  """Return 1 x 1 to few channels, the convolution on those, and 1 x 1 back.

  The three convolutions of He+ 2016 (arXiv 1512.03385, figure 5) without
  norms and activations between: the Tucker-2 form of the trained kernel.
  """
  few = _few(channels, conv.features)
  reduce = _point(conv, f'{conv.name}_reduce', few, (1, 1))
  core = dataclasses.replace(conv, name=f'{conv.name}_core', features=few)
  return (
    dataclasses.replace(reduce, bias=False),
    dataclasses.replace(core, bias=False),
    _point(conv, conv.name),
  )


def split_bottleneck(kernel: np.ndarray) -> dict[str, np.ndarray]:
  """Return the kernel in the leading subspaces of its inputs and outputs.

  The truncated higher-order SVD of two modes (Kim+ 2016, arXiv 1511.06530,
  equation 3).
  """
  few = _few(*kernel.shape[2:])
  taken = _leading(np.moveaxis(kernel, 2, 0), few)
  given = _leading(np.moveaxis(kernel, 3, 0), few)
  core = np.einsum('hwio,ia,ob->hwab', kernel, taken, given)
  return {'_reduce': taken[None, None], '_core': core, '': given.T[None, None]}


def fire(conv: Conv, channels: int) -> tuple[Layer, ...]:
  """Return 1 x 1 to few channels, then half of the outputs by 1 x 1 filters.

  SqueezeNet: Iandola+ 2016, arXiv 1602.07360, section 3.2. A ReLU between
  them leaves no closed form: the layers are reinitialized.
  """
  fix = 'Pad the network, or use another kind.'
  right = conv.padding == 'SAME'
  expect(f'compact at {conv.name}', right, 'SAME', conv.padding, fix)
  few, half = _few(channels, conv.features), conv.features // 2
  squeeze = _point(conv, f'{conv.name}_squeeze', few, (1, 1))
  narrow = _point(conv, f'{conv.name}_narrow', half, conv.strides)
  wide = dataclasses.replace(
    conv, name=f'{conv.name}_wide', features=conv.features - half
  )
  return squeeze, Act(), Branch(paths=((narrow,), (wide,)), merge='concat')


def _point(
  conv: Conv,
  name: str,
  features: int = 0,
  strides: tuple[int, int] = (1, 1),
) -> Conv:
  """Return a 1 x 1 convolution with the outputs of another, or fewer."""
  return dataclasses.replace(
    conv,
    name=name,
    features=features or conv.features,
    kernel=(1, 1),
    strides=strides,
  )


def _few(channels: int, features: int) -> int:
  return max(1, min(channels, features // NARROW))


def _leading(unfolded: np.ndarray, count: int) -> np.ndarray:
  """Return the leading left singular vectors, `[axis 0, count]`."""
  flat = unfolded.reshape(len(unfolded), -1)
  vectors: np.ndarray = np.linalg.svd(flat, full_matrices=False)[0]
  return vectors[:, :count]


KINDS = {
  'bottleneck': Kind(bottleneck, split_bottleneck),
  'fire': Kind(fire, None),
  'separable': Kind(separable, split_separable),
}


def compact(
  spec: Spec, variables: dict[str, Any], kind: str, seed: int
) -> tuple[Spec, dict[str, Any]]:
  """Return a trained network with compact filters.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    kind: One of `KINDS`.
    seed: Seed of the layers that are reinitialized.

  Returns:
    The spec and variables of the network, which has to be retrained.

  Raises:
    ValueError: As `rewritten`.
  """
  small = rewritten(spec, kind)
  drawn = net_lib.init_variables(small, seed)
  params = {
    name: variables['params'].get(name, layer)
    for name, layer in drawn['params'].items()
  }
  for conv in _chosen(spec):
    params |= _parts(conv.name, params, variables['params'], kind)
  return small, {**variables, 'params': params}


def rewritten(spec: Spec, kind: str) -> Spec:
  """Return the network with compact filters, of the same name.

  The first convolution, which has few input channels, and 1 x 1 and grouped
  ones are not changed.

  Args:
    spec: The network.
    kind: One of `KINDS`, or '' for none.

  Returns:
    The network.

  Raises:
    ValueError: If there is no convolution to rewrite, or shapes do not match.

  >>> conv = [Conv(name=n, features=8, kernel=(3, 3)) for n in ('one', 'two')]
  >>> net = Spec(name='n', input_shape=(9, 9, 1), layers=tuple(conv))
  >>> [x.name for x in rewritten(net, 'separable').layers]
  ['one', 'two_depth', 'two']
  """
  if not kind:
    return spec
  expect('compact', kind in KINDS, ' or '.join(KINDS), kind)
  large = {conv.name for conv in _chosen(spec)}
  expect('compact', large, 'a convolution behind the first', 'none')
  channels = {
    step.layer.name: step.before[-1]
    for step in sp.walk(spec)
    if isinstance(step.layer, Conv)
  }

  def visit(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    out: list[Layer] = []
    for layer in layers:
      if isinstance(layer, Branch):
        layer = Branch(paths=tuple(map(visit, layer.paths)), merge=layer.merge)
      if isinstance(layer, Conv) and layer.name in large:
        out += KINDS[kind].layers(layer, channels[layer.name])
      else:
        out.append(layer)
    return tuple(out)

  small = Spec(
    name=spec.name, input_shape=spec.input_shape, layers=visit(spec.layers)
  )
  sp.output_shape(small)
  return small


def _chosen(spec: Spec) -> list[Conv]:
  """Return the convolutions that are rewritten."""
  convs = [s.layer for s in sp.walk(spec) if isinstance(s.layer, Conv)]
  return [c for c in convs[1:] if c.kernel != (1, 1) and c.groups == 1]


def _parts(
  name: str, drawn: dict[str, Any], dense: dict[str, Any], kind: str
) -> dict[str, Any]:
  """Return the parameters of the layers for a convolution."""
  split = KINDS[kind].split
  if split is None:
    return {}
  kernel = np.asarray(tree.decode(dense[name]['kernel']))
  return {
    f'{name}{end}': {
      **drawn[f'{name}{end}'],
      'kernel': jnp.asarray(part, kernel.dtype),
    }
    for end, part in split(kernel).items()
  }
