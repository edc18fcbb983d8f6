"""Dependencies between channels, found on any Flax network.

Weights are random, the output of every layer that mixes channels is replaced
by noise, and one output channel at a time is perturbed. Every channel that the
perturbation reaches through norms, activations, pools, sums and concatenations
before the next layer mixes it depends on that channel.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.tree import Array, Params, Path

PERTURBATION = 1e3  # large for any activation of a random network
ROLES = ('produces', 'carries', 'consumes')
Members: TypeAlias = dict[
  tuple[str, str], list[int]
]  # (module, role) -> channels
_INPUT = '<input>'  # the network's, among the names of modules
_BATCH = 32  # perturbations in one batch
CHANGED = 1e-3  # relative; rounding errors are smaller, effects larger


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


class _Call(NamedTuple):
  """One call of a module that holds parameters."""

  module: str
  kind: str  # 'mixes', 'carries' or 'opaque'
  inputs: Array
  shape: tuple[int, ...]  # of the outputs


class _Hit(NamedTuple):
  """The effect of perturbing the channels of one module on a call.

  The outputs of the network are the module '' of kind 'output'.
  """

  producer: str
  module: str
  kind: str
  changed: np.ndarray  # [channels of the producer, channels of the input]


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
  drawn = _drawn(jax.eval_shape(tree.decode, params))
  return _grouped(_perturbed(apply, drawn, shapes), shapes)


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


def _drawn(shapes: Params) -> Params:
  """Return random parameters, positive so that no channel is dead."""
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(generator.uniform(0.5, 1.5, x.shape), x.dtype),
    shapes,
  )


def _leaves(module: str, shapes: dict[Path, Any]) -> dict[Path, Any]:
  return {p: s for p, s in shapes.items() if p.rpartition('/')[0] == module}


def _kernel(module: str) -> Path:
  return f'{module}/kernel' if module else 'kernel'


def _kind(module: str, shapes: dict[Path, Any], before: int, after: int) -> str:
  """Return what a module does with the channels of its input."""
  leaves = _leaves(module, shapes)
  within = f'{module}/' if module else ''
  if any(p.startswith(within) and p not in leaves for p in shapes):
    return 'opaque'  # parameters of its own next to those of its layers
  weights = [p for p, s in leaves.items() if len(s) >= 2]
  if not weights:
    each = all(s in ((), (1,), (before,)) for s in leaves.values())
    return 'carries' if each and before == after else 'opaque'
  if weights != [_kernel(module)]:
    return 'opaque'
  *_, wide, out = shapes[weights[0]]
  if wide == 1 and before == out == after > 1:
    return 'carries'  # depthwise
  return 'mixes' if (wide, out) == (before, after) else 'opaque'


def _run(
  apply: Callable[[Params], Array],
  params: Params,
  shapes: dict[Path, Any],
  visit: Callable[[_Call], Array | None],
) -> Array:
  """Apply a network; `visit` may replace its inputs and layer outputs."""
  owners = {path.rpartition('/')[0] for path in shapes}

  def intercept(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    module = '/'.join(context.module.path)
    if context.method_name != '__call__' or not args or not _is_array(args[0]):
      return call(*args, **kwargs)
    x, *rest = args
    if not module and jnp.issubdtype(x.dtype, jnp.floating):
      start = visit(_Call(_INPUT, 'opaque', x, x.shape))
      x = x if start is None else start
    outputs = call(x, *rest, **kwargs)
    if module not in owners or not _is_array(outputs):
      return outputs
    kind = _kind(module, shapes, x.shape[-1], outputs.shape[-1])
    if kind == 'opaque':  # perturbations of its inner layers may leave it
      visit(_Call(module, kind, outputs, outputs.shape))
    replaced = visit(_Call(module, kind, x, outputs.shape))
    return outputs if replaced is None else replaced

  with nn.intercept_methods(intercept):
    return apply(params)


def _is_array(x: Any) -> bool:
  return isinstance(x, jax.Array | np.ndarray) and x.ndim > 0


def _perturbed(
  apply: Callable[[Params], Array], params: Params, shapes: dict[Path, Any]
) -> list[_Hit]:
  """Perturb each output channel of each module and record what changes.

  The outputs of all modules but those that carry channels on, and the inputs
  of the network, are replaced by noise of unit size plus the perturbation.
  """
  calls: list[_Call] = []
  wide = _widths(apply, params, shapes)
  starts = dict(
    zip(wide, itertools.accumulate(wide.values(), initial=0), strict=False)
  )

  def inputs(shift: Array) -> list[Array]:
    calls.clear()

    def visit(call: _Call) -> Array | None:
      calls.append(call)
      if call.kind == 'carries':
        return None
      noise = _noise(len(calls), call.shape)
      if call.shape[-1] != wide[call.module]:
        return noise
      first = starts[call.module]
      return noise + shift[first : first + wide[call.module]]

    end = _run(apply, params, shapes, visit)
    return [*(call.inputs for call in calls), end]

  @jax.jit
  def reached(shifts: Array) -> list[Array]:
    base = inputs(jnp.zeros(shifts.shape[1]))
    return jax.lax.map(
      lambda shift: list(map(_changed, inputs(shift), base)),
      shifts,
      batch_size=_BATCH,
    )

  units = PERTURBATION * jnp.eye(sum(wide.values()))
  up, down = (jax.device_get(reached(sign * units)) for sign in (1, -1))
  names = [*((call.module, call.kind) for call in calls), ('', 'output')]
  return [
    _Hit(producer, module, kind, (a | b)[first : first + wide[producer]])
    for producer, first in starts.items()
    for (module, kind), a, b in zip(names, up, down, strict=True)
  ]


def _noise(seed: int, shape: tuple[int, ...]) -> Array:
  """Return irregular numbers in [-1, 1]; cheaper to compile than random."""
  size = math.prod(shape)
  return jnp.sin(
    (1 + jnp.arange(size, dtype=jnp.float32)) * (seed + 0.7)
  ).reshape(shape)


def _widths(
  apply: Callable[[Params], Array], params: Params, shapes: dict[Path, Any]
) -> dict[str, int]:
  """Return the widths of the modules to perturb, in the order of calls."""
  found: list[_Call] = []
  jax.eval_shape(lambda p: _run(apply, p, shapes, found.append), params)
  return {c.module: c.shape[-1] for c in found if c.kind != 'carries'}


def _changed(x: Array, base: Array) -> Array:
  """Return which channels differ anywhere, `[channels]`."""
  far = jnp.abs(x - base) > CHANGED * (1 + jnp.abs(base))
  return jnp.any(far, axis=tuple(range(far.ndim - 1)))


def _grouped(hits: list[_Hit], shapes: dict[Path, Any]) -> list[Group]:
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


def _components(hits: list[_Hit]) -> list[set[tuple[str, str, int]]]:
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
  kernel = _kernel(module)
  if role == 'consumes':
    return [Slice(kernel, len(shapes[kernel]) - 2, index, role)]
  return [
    Slice(path, len(shape) - 1, index, role)
    for path, shape in _leaves(module, shapes).items()
    if shape and shape[-1] > 1 or path == kernel
  ]
