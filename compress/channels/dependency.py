"""Which channels can only go together, found on any Flax network.

Weights are drawn at random, every layer that mixes channels is held at its
output, and one output channel at a time is pushed. What the push reaches
through norms, activations, pools, sums and concatenations, before the next
layer mixes it, belongs to that channel.
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

PUSH = 1e3  # large beside any activation of a network drawn at random
ROLES = ('makes', 'carries', 'takes')
Members: TypeAlias = dict[
  tuple[str, str], list[int]
]  # (module, role) -> channels
_INPUT = '<input>'  # of the network, beside the names of modules
_AT_ONCE = 32  # pushes in one batch
TOUCHED = 1e-3  # relative; a float error is smaller, an effect is larger


class Slice(NamedTuple):
  """The entries of one array that belong to the channels of a group.

  Attributes:
    path: Of the array.
    axis: Where its channels lie.
    entries: `[channels, n]`: the entries along the axis of each channel; a
      dense layer behind a flattened image has one for each pixel.
    role: 'makes' the channel, 'carries' it on by itself, or 'takes' it in.
  """

  path: Path
  axis: int
  entries: np.ndarray
  role: str


class Group(NamedTuple):
  """Channels that go together, whichever of them goes.

  Attributes:
    name: The layers that make them, as 'conv1' or 'conv0+block1_conv2'.
    slices: Everything that goes with a channel.
  """

  name: str
  slices: tuple[Slice, ...]

  @property
  def channels(self) -> int:
    """How many channels there are to choose from."""
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
  """What pushing the channels of one module does to the inputs of a call.

  The outputs of the network are the module '' of kind 'output'.
  """

  maker: str
  module: str
  kind: str
  changed: np.ndarray  # [channels of the maker, channels of the input]


def groups(apply: Callable[[Params], Array], params: Params) -> list[Group]:
  """Find the channels of a network that can be removed, and what with them.

  Args:
    apply: Applies Flax modules to decoded parameters, in evaluation mode and
      not jitted, and returns the outputs `[examples, ...]`.
    params: Its parameters, arrays or nodes; only shapes are looked at.

  Returns:
    The groups, in the order of the network. Channels that reach the outputs,
    that a layer of unknown form takes in or adds to, that the (floating point)
    inputs of the network are added to, or that are mixed by something without
    weights (as a layer norm does) are in none.
  """
  shapes = {
    path: x.shape
    for path, x in tree.paths(jax.eval_shape(tree.decode, params)).items()
  }
  drawn = _drawn(jax.eval_shape(tree.decode, params))
  return _families(_pushed(apply, drawn, shapes), shapes)


def describe(found: Iterable[Group]) -> list[str]:
  """Return a line for every slice: what goes with the channels, and why."""
  why = {
    'makes': 'makes the channels',
    'carries': 'carries each on by itself',
    'takes': 'takes them in',
  }
  return [
    f'{group.name} ({group.channels} channels): {s.path}, axis {s.axis}, '
    f'{s.entries.shape[1]} a channel: {why[s.role]}'
    for group in found
    for s in group.slices
  ]


def _drawn(shapes: Params) -> Params:
  """Return parameters that leave no channel dead or alike."""
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
  """Tell what a module does with the channels of its input."""
  leaves = _leaves(module, shapes)
  within = f'{module}/' if module else ''
  if any(p.startswith(within) and p not in leaves for p in shapes):
    return 'opaque'  # parameters of its own, somewhere among its layers
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
  """Apply a network; `visit` may replace its inputs and what layers return."""
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
    if kind == 'opaque':  # what its inner layers push may leave it
      visit(_Call(module, kind, outputs, outputs.shape))
    replaced = visit(_Call(module, kind, x, outputs.shape))
    return outputs if replaced is None else replaced

  with nn.intercept_methods(intercept):
    return apply(params)


def _is_array(x: Any) -> bool:
  return isinstance(x, jax.Array | np.ndarray) and x.ndim > 0


def _pushed(
  apply: Callable[[Params], Array], params: Params, shapes: dict[Path, Any]
) -> list[_Hit]:
  """Push each output channel of each module; see what it reaches.

  All but those that carry are held at noise of unit size, plus the push, and
  so are the inputs of the network.
  """
  calls: list[_Call] = []
  wide = _widths(apply, params, shapes)
  starts = dict(
    zip(wide, itertools.accumulate(wide.values(), initial=0), strict=False)
  )

  def inputs(push: Array) -> list[Array]:
    calls.clear()

    def visit(call: _Call) -> Array | None:
      calls.append(call)
      if call.kind == 'carries':
        return None
      noise = _noise(len(calls), call.shape)
      if call.shape[-1] != wide[call.module]:
        return noise
      first = starts[call.module]
      return noise + push[first : first + wide[call.module]]

    end = _run(apply, params, shapes, visit)
    return [*(call.inputs for call in calls), end]

  @jax.jit
  def reached(pushes: Array) -> list[Array]:
    base = inputs(jnp.zeros(pushes.shape[1]))
    return jax.lax.map(
      lambda push: list(map(_changed, inputs(push), base)),
      pushes,
      batch_size=_AT_ONCE,
    )

  hot = PUSH * jnp.eye(sum(wide.values()))
  up, down = (jax.device_get(reached(sign * hot)) for sign in (1, -1))
  names = [*((call.module, call.kind) for call in calls), ('', 'output')]
  return [
    _Hit(maker, module, kind, (a | b)[first : first + wide[maker]])
    for maker, first in starts.items()
    for (module, kind), a, b in zip(names, up, down, strict=True)
  ]


def _noise(seed: int, shape: tuple[int, ...]) -> Array:
  """Return numbers in [-1, 1] without pattern; cheap to compile."""
  size = math.prod(shape)
  return jnp.sin(
    (1 + jnp.arange(size, dtype=jnp.float32)) * (seed + 0.7)
  ).reshape(shape)


def _widths(
  apply: Callable[[Params], Array], params: Params, shapes: dict[Path, Any]
) -> dict[str, int]:
  """Return the outputs of the modules to push, in the order of their calls."""
  found: list[_Call] = []
  jax.eval_shape(lambda p: _run(apply, p, shapes, found.append), params)
  return {c.module: c.shape[-1] for c in found if c.kind != 'carries'}


def _changed(x: Array, base: Array) -> Array:
  """Return which channels differ anywhere, `[channels]`."""
  far = jnp.abs(x - base) > TOUCHED * (1 + jnp.abs(base))
  return jnp.any(far, axis=tuple(range(far.ndim - 1)))


def _families(hits: list[_Hit], shapes: dict[Path, Any]) -> list[Group]:
  """Join channels that share an input into groups of like components."""
  order = list(dict.fromkeys(hit.maker for hit in hits))
  families: dict[tuple[str, ...], list[Members]] = {}
  for part in _components(hits):
    members: Members = defaultdict(list)
    for module, role, i in sorted(part):
      members[module, role].append(i)
    makers = (m for m, role in members if role == 'makes')
    name = tuple(sorted(makers, key=order.index))
    if not name:
      continue  # nothing that could be removed
    families.setdefault(name, []).append(members)
  found = [
    _group(makers, families[makers], shapes)
    for makers in sorted(families, key=lambda names: order.index(names[0]))
  ]
  return [group for group in found if group is not None]


def _components(hits: list[_Hit]) -> list[set[tuple[str, str, int]]]:
  """Return what is connected: (module, role, channel)."""
  parts: dict[Any, set[Any]] = {}

  def join(one: Any, other: Any) -> None:
    a, b = parts.setdefault(one, {one}), parts.setdefault(other, {other})
    if a is not b:
      a |= b
      parts.update(dict.fromkeys(b, a))

  opaque = {hit.module for hit in hits if hit.kind == 'opaque'}
  for maker, module, kind, changed in hits:
    source = 'opaque' if maker in opaque else 'makes'
    role = 'takes' if kind == 'mixes' else kind
    for c, i in np.argwhere(changed).tolist():
      join((maker, source, c), (module, role, i))
  return list({id(part): part for part in parts.values()}.values())


def _group(
  makers: tuple[str, ...], members: list[Members], shapes: dict[Path, Any]
) -> Group | None:
  """Return the group of like components, None if they cannot be removed."""
  members = sorted(members, key=lambda m: m[makers[0], 'makes'])
  first, *rest = ({k: len(v) for k, v in m.items()} for m in members)
  roles = {role for _, role in first}
  single = all(first[maker, 'makes'] == 1 for maker in makers)
  if any(other != first for other in rest) or not single:
    return None
  if 'takes' not in roles or roles & {'opaque', 'output'}:
    return None
  slices: list[Slice] = []
  for module, role in sorted(first, key=lambda key: ROLES.index(key[1])):
    index = np.array([m[module, role] for m in members])
    slices += _slices(module, role, index, shapes)
  return Group('+'.join(makers), tuple(slices))


def _slices(
  module: str, role: str, index: np.ndarray, shapes: dict[Path, Any]
) -> list[Slice]:
  """Return the slices of one module: all its arrays, or what takes in."""
  kernel = _kernel(module)
  if role == 'takes':
    return [Slice(kernel, len(shapes[kernel]) - 2, index, role)]
  return [
    Slice(path, len(shape) - 1, index, role)
    for path, shape in _leaves(module, shapes).items()
    if shape and shape[-1] > 1 or path == kernel
  ]
