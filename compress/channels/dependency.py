"""Dependencies between channels, found on any Flax network.

Weights are random, the output of every layer that mixes channels is replaced
by noise, and one output channel at a time is perturbed. Every channel that the
perturbation reaches through norms, activations, pools, sums and concatenations
before the next layer mixes it depends on that channel.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from compress import tree
from compress.channels.perturbation import Hit, hits, kernel, leaves
from compress.tree import Array, Params, Path

ROLES = ('produces', 'carries', 'consumes')
Members: TypeAlias = dict[
  tuple[str, str], list[int]
]  # (module, role) -> channels


class Slice(NamedTuple):
  """The entries of one array that belong to the channels of a group.

  Attributes:
    path: Of the array.
    axis: Axis of its channels.
    entries: `[channels, n]`: the entries along the axis of each channel; a
      dense layer behind a flattened image has one for each pixel.
    role: 'produces' the channel, 'carries' it on elementwise (a norm, a
      depthwise convolution), or 'consumes' it.
  """

  path: Path
  axis: int
  entries: np.ndarray
  role: str


class Group(NamedTuple):
  """Channels that can only be removed together with their dependencies.

  Attributes:
    name: The layers that produce them, as 'conv1' or 'conv0+block1_conv2'.
    slices: All entries that are removed with a channel.
  """

  name: str
  slices: tuple[Slice, ...]

  @property
  def channels(self) -> int:
    """Number of channels."""
    return len(self.slices[0].entries)

  def of(self, role: str) -> list[Slice]:
    """Return the slices with a role."""
    return [s for s in self.slices if s.role == role]


def groups(apply: Callable[[Params], Array], params: Params) -> list[Group]:
  """Find the removable channels of a network and their dependencies.

  Args:
    apply: Applies Flax modules to decoded parameters, in evaluation mode and
      not jitted, and returns the outputs `[examples, ...]`.
    params: Its parameters, arrays or nodes; only shapes are used.

  Returns:
    The groups, in the order of the network. Channels are in no group if they
    reach the outputs, if a layer of unknown form consumes them or adds to
    them, if the (floating point) inputs of the network are added to them, or
    if they are mixed by an operation without weights (as in a layer norm).
  """
  shapes = {
    path: x.shape
    for path, x in tree.paths(jax.eval_shape(tree.decode, params)).items()
  }
  return _grouped(hits(apply, params, shapes), shapes)


def describe(found: Iterable[Group]) -> list[str]:
  """Return one line for every slice: the dependency and its reason."""
  why = {
    'produces': 'produces the channels',
    'carries': 'carries each on elementwise',
    'consumes': 'consumes them',
  }
  return [
    f'{group.name} ({group.channels} channels): {s.path}, axis {s.axis}, '
    f'{s.entries.shape[1]} per channel: {why[s.role]}'
    for group in found
    for s in group.slices
  ]


def _grouped(hits: list[Hit], shapes: dict[Path, Any]) -> list[Group]:
  """Join channels that share an input into groups of equal structure."""
  order = list(dict.fromkeys(hit.producer for hit in hits))
  families: dict[tuple[str, ...], list[Members]] = {}
  for part in _components(hits):
    members: Members = defaultdict(list)
    for module, role, i in sorted(part):
      members[module, role].append(i)
    producers = (m for m, role in members if role == 'produces')
    name = tuple(sorted(producers, key=order.index))
    if not name:
      continue  # nothing can be removed
    families.setdefault(name, []).append(members)
  found = [
    _group(producers, families[producers], shapes)
    for producers in sorted(families, key=lambda names: order.index(names[0]))
  ]
  return [group for group in found if group is not None]


def _components(hits: list[Hit]) -> list[set[tuple[str, str, int]]]:
  """Return connected components of (module, role, channel)."""
  parts: dict[Any, set[Any]] = {}

  def join(one: Any, other: Any) -> None:
    a, b = parts.setdefault(one, {one}), parts.setdefault(other, {other})
    if a is not b:
      a |= b
      parts.update(dict.fromkeys(b, a))

  opaque = {hit.module for hit in hits if hit.kind == 'opaque'}
  for producer, module, kind, changed in hits:
    source = 'opaque' if producer in opaque else 'produces'
    role = 'consumes' if kind == 'mixes' else kind
    for c, i in np.argwhere(changed).tolist():
      join((producer, source, c), (module, role, i))
  return list({id(part): part for part in parts.values()}.values())


def _group(
  producers: tuple[str, ...], members: list[Members], shapes: dict[Path, Any]
) -> Group | None:
  """Return the group of equal components; None if it cannot be removed."""
  members = sorted(members, key=lambda m: m[producers[0], 'produces'])
  first, *rest = ({k: len(v) for k, v in m.items()} for m in members)
  roles = {role for _, role in first}
  single = all(first[producer, 'produces'] == 1 for producer in producers)
  if any(other != first for other in rest) or not single:
    return None
  if 'consumes' not in roles or roles & {'opaque', 'output'}:
    return None
  slices: list[Slice] = []
  for module, role in sorted(first, key=lambda key: ROLES.index(key[1])):
    index = np.array([m[module, role] for m in members])
    slices += _slices(module, role, index, shapes)
  return Group('+'.join(producers), tuple(slices))


def _slices(
  module: str, role: str, index: np.ndarray, shapes: dict[Path, Any]
) -> list[Slice]:
  """Return the slices of one module: all its arrays, or its inputs."""
  weight = kernel(module)
  if role == 'consumes':
    return [Slice(weight, len(shapes[weight]) - 2, index, role)]
  return [
    Slice(path, len(shape) - 1, index, role)
    for path, shape in leaves(module, shapes).items()
    if shape and shape[-1] > 1 or path == weight
  ]
