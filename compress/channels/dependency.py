"""Dependencies between channels, found on any network by dataflow.

Weights are random, the output of every product that mixes channels is replaced
by noise, and one output channel at a time is perturbed. Every channel that the
perturbation reaches through norms, activations, pools, sums and concatenations
before the next layer mixes it depends on that channel.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from compress import tree
from compress.channels.perturbation import Hit, hits
from compress.tree import Params, Path

ROLES = ('produces', 'carries', 'consumes')
OUTPUTS = 'they are outputs of the network'
Members: TypeAlias = dict[
  tuple[Path, str], list[int]
]  # (parameter, role) -> channels


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


def groups(
  apply: Callable[..., Any], params: Params, inputs: tuple[Any, ...]
) -> list[Group]:
  """Find the removable channels of a network and their dependencies.

  Args:
    apply: `(params, *inputs)` -> the outputs, in evaluation mode, of
      parameters as methods see them: `Probe.apply`.
    params: Its parameters, arrays or nodes; only shapes are used.
    inputs: Of the network: `Probe.examples`.

  Returns:
    The groups, in the order of the network. Channels are in no group if they
    reach the outputs, if an operation of unknown form consumes them or adds to
    them, if the (floating point) inputs of the network are added to them, or
    if they are mixed by an operation without weights (as in a layer norm).
  """
  return explained(apply, params, inputs)[0]


def explained(
  apply: Callable[..., Any], params: Params, inputs: tuple[Any, ...]
) -> tuple[list[Group], dict[str, str]]:
  """Return the groups, and why the channels of other layers cannot go.

  Args:
    apply: As `groups`.
    params: As there.
    inputs: As there.

  Returns:
    The groups, and reasons by the name of the layer, as 'they are outputs'.
  """
  shapes = {
    path: x.shape
    for path, x in tree.paths(jax.eval_shape(tree.decode, params)).items()
  }
  found = hits(apply, params, inputs)
  layers = layer_names(shapes)
  groups = _grouped(found, shapes, layers)
  grouped = {s.path for group in groups for s in group.of('produces')}
  mixing = {hit.path for hit in found if hit.kind == 'mixes'}
  left = [path for path in shapes if path in mixing and path not in grouped]
  reasons = {layers[path]: _reason(path, found) for path in left}
  met = {hit.path for hit in found}
  looped = [p for p, x in shapes.items() if len(x) > 1 and p not in met]
  why = 'they are computed in a loop'
  return groups, reasons | {layers[path]: why for path in looped}


def _reason(path: Path, hits: list[Hit]) -> str:
  """Return why the channels that a weight puts out cannot be removed."""
  reached = [hit for hit in hits if hit.producer == path and hit.changed.any()]
  for kind, why in (
    ('output', OUTPUTS),
    ('opaque', 'they meet {}'),
  ):
    for hit in reached:
      if hit.kind == kind:
        return why.format(hit.path)
  for hit in reached:
    if hit.kind == 'carries' and np.any(hit.changed.sum(1) > 1):
      return f'they are mixed before they meet {hit.path}, as by a norm'
  if not any(hit.kind == 'mixes' for hit in reached):
    return 'no weight outside a loop takes them'
  return 'each is used in another way, or with inputs of the network'


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


def _grouped(
  hits: list[Hit], shapes: dict[Path, Any], layers: dict[Path, str]
) -> list[Group]:
  """Join channels that share an input into groups of equal structure."""
  order = list(dict.fromkeys(hit.producer for hit in hits))
  families: dict[tuple[str, ...], list[Members]] = {}
  for part in _components(hits):
    members: Members = defaultdict(list)
    for path, role, i in sorted(part):
      members[path, role].append(i)
    producers = (path for path, role in members if role == 'produces')
    name = tuple(sorted(producers, key=order.index))
    if not name:
      continue  # nothing can be removed
    families.setdefault(name, []).append(members)
  found = [
    _group(producers, families[producers], shapes, layers)
    for producers in sorted(families, key=lambda names: order.index(names[0]))
  ]
  return [group for group in found if group is not None]


def _components(hits: list[Hit]) -> list[set[tuple[str, str, int]]]:
  """Return connected components of (parameter, role, channel)."""
  parts: dict[Any, set[Any]] = {}

  def join(one: Any, other: Any) -> None:
    a, b = parts.setdefault(one, {one}), parts.setdefault(other, {other})
    if a is not b:
      a |= b
      parts.update(dict.fromkeys(b, a))

  opaque = {hit.path for hit in hits if hit.kind == 'opaque'}
  for producer, path, kind, changed in hits:
    source = 'opaque' if producer in opaque else 'produces'
    role = 'consumes' if kind == 'mixes' else kind
    for c, i in np.argwhere(changed).tolist():
      join((producer, source, c), (path, role, i))
  return list({id(part): part for part in parts.values()}.values())


def _group(
  producers: tuple[str, ...],
  members: list[Members],
  shapes: dict[Path, Any],
  layers: dict[Path, str],
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
  owners = {_module(path) for path in producers}
  slices: list[Slice] = []
  for path, role in first:
    index = np.array([m[path, role] for m in members])
    axis = len(shapes[path]) - (2 if role == 'consumes' else 1)
    # The bias of a layer is produced with the outputs of its kernel.
    own = role == 'carries' and _module(path) in owners
    slices.append(Slice(path, axis, index, 'produces' if own else role))
  slices.sort(key=lambda part: ROLES.index(part.role))
  return Group('+'.join(layers[path] for path in producers), tuple(slices))


def layer_names(shapes: Mapping[Path, Any]) -> dict[Path, str]:
  """Return the name of the layer that each parameter belongs to.

  It is the module that holds the parameter, and the parameter itself where
  that holds several weights, as a list of kernels does.

  Args:
    shapes: Of the parameters, by path.

  >>> layer_names({'a/kernel': (2, 3), 'a/bias': (3,), 'w': (3, 2)})
  {'a/kernel': 'a', 'a/bias': 'a', 'w': 'w'}
  >>> layer_names({'all/0': (2, 3), 'all/1': (3, 2)})
  {'all/0': 'all/0', 'all/1': 'all/1'}
  """
  weights = Counter(_module(path) for path, x in shapes.items() if len(x) > 1)
  owners = {path: _module(path) for path in shapes}
  return {
    path: owner if owner and weights[owner] <= 1 else path
    for path, owner in owners.items()
  }


def _module(path: Path) -> str:
  return path.rpartition('/')[0]
