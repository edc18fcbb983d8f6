"""What a change of each channel reaches, found by perturbing a network."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels import cropping
from compress.channels.cropping import Crop
from compress.dataflow import inputs as inputs_lib
from compress.dataflow import interpreter, rules
from compress.dataflow.interpreter import Multiply, Operation, Product, Record
from compress.tree import Array, Params, Path

PERTURBATION = 1e3  # large for any activation of a random network
CHANGED = 1e-3  # relative; rounding errors are smaller, effects larger
INPUT = '<input>'  # one of the network's, among the paths of parameters
OUTPUT = '<output>'
_BATCH = 32  # perturbations in one batch

# Apply a network: `(params, *inputs)` -> outputs.
Apply: TypeAlias = Callable[..., Any]


class Use(NamedTuple):
  """One use of a parameter, an input or an output of the network.

  Attributes:
    path: Of the parameter, `INPUT` or `OUTPUT`.
    kind: 'mixes' the channels of its input into others, 'carries' each on, is
      'opaque', or the 'output' of the network.
    inputs: `[..., channels]`.
    width: Channels that it puts out and that are perturbed, or 0.
  """

  path: Path
  kind: str
  inputs: Array
  width: int


# What comes in place of the output of a use: shape, its axes of channels.
Visit: TypeAlias = Callable[[Use, tuple[int, ...], tuple[int, ...]], Any]


class Hit(NamedTuple):
  """The effect of perturbing the channels of one parameter on a use.

  Attributes:
    producer: Path of the parameter.
    path: Of the use.
    kind: Of the use.
    changed: `[channels of the producer, channels of the input]` bool.
  """

  producer: Path
  path: Path
  kind: str
  changed: np.ndarray


def hits(apply: Apply, params: Params, inputs: tuple[Any, ...]) -> list[Hit]:
  """Return what perturbing the channels of each parameter changes.

  Args:
    apply: As `dependency.groups`.
    params: Arrays or nodes; only shapes are used.
    inputs: Of the network.

  Returns:
    The effects, found on the smallest input with the same structure.
  """
  drawn = _drawn(jax.eval_shape(tree.decode, params))
  inputs = _floats(apply, drawn, inputs)
  small = cropping.smallest(
    lambda crop: _run(apply, drawn, inputs, _nothing, crop)
  )
  run = functools.partial(_run, apply, crop=small)
  return _perturbed(lambda visit: run(drawn, inputs, visit))


def _drawn(shapes: Params) -> Params:
  """Return random parameters, positive so that no channel is dead."""
  generator = np.random.default_rng(0)

  def draw(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.floating):
      return jnp.zeros(x.shape, x.dtype)
    return jnp.asarray(generator.uniform(0.5, 1.5, x.shape), x.dtype)

  return jax.tree.map(draw, shapes)


def _floats(
  apply: Apply, params: Params, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
  """Return inputs without integers, where the network takes floats for them.

  As pixels, whose channels may reach any layer, but not as rows of a table.
  """
  leaves, structure = jax.tree.flatten(inputs)
  for i, x in enumerate(leaves):
    if not jnp.issubdtype(x.dtype, jnp.integer):
      continue
    changed = [*leaves[:i], jnp.asarray(x, jnp.float32), *leaves[i + 1 :]]
    try:
      jax.eval_shape(apply, params, *jax.tree.unflatten(structure, changed))
    except Exception:  # networks raise whatever they like
      continue
    leaves = changed
  return tuple(jax.tree.unflatten(structure, leaves))


def _nothing(use: Use, shape: Any, axes: Any) -> None:
  """Visit a use without replacing its output."""
  del use, shape, axes


def _run(
  apply: Apply,
  params: Params,
  inputs: tuple[Any, ...],
  visit: Visit,
  crop: Crop,
) -> Any:
  """Apply a network; `visit` may replace its inputs and layer outputs."""

  def product(
    found: Product, x: Array, multiply: Multiply
  ) -> tuple[Array, Record]:
    if found.loops:
      return multiply(x), {}  # what it reaches counts as mixed
    last, _ = inputs_lib.channels_last(found, x)
    kind, axes = _kind(found, last.shape[-1]), _channels(found)
    shape = found.eqn.outvars[0].aval.shape
    width = 0 if kind == 'carries' else math.prod(shape[i] for i in axes)
    use = Use(found.view.path, kind, last, width)
    replaced = visit(use, shape, axes)
    dtype = found.eqn.outvars[0].aval.dtype
    return multiply(x) if replaced is None else replaced.astype(dtype), {}

  def other(found: Operation, y: Any) -> tuple[Any, Record]:
    view, size = found.view, math.prod(found.view.shape)
    if found.loops or size == 1 or y is None or found.name == 'carry':
      return y, {}
    axes = tuple(i for i, along in enumerate(view.axes) if along)
    if (
      _is_elementwise(found, y) and math.prod(y.shape[i] for i in axes) == size
    ):
      visit(Use(view.path, 'carries', _last(y, axes), 0), y.shape, axes)
      return y, {}
    axes = (y.ndim - 1,)
    replaced = visit(Use(view.path, 'opaque', y, y.shape[-1]), y.shape, axes)
    return y if replaced is None else replaced.astype(y.dtype), {}

  def start(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.floating) or not x.ndim:
      return x
    use = Use(INPUT, 'opaque', x, x.shape[-1])
    replaced = visit(use, x.shape, (x.ndim - 1,))
    return x if replaced is None else replaced.astype(x.dtype)

  given = jax.tree.map(lambda x: start(crop(jnp.asarray(x))), inputs)
  outputs, _ = rules.run(
    lambda flat, *inputs: apply(
      tree.map_paths(lambda path, _: flat[path], params), *inputs
    ),
    tree.paths(params),
    given,
    interpreter.Hook(product, other),
    remat=False,
  )
  return outputs


def _is_elementwise(found: Operation, y: Array) -> bool:
  """Return whether a vector is combined with channels one by one."""
  view = found.view
  others = ('concatenate', 'gather', 'weights')
  named = found.name.startswith('custom') or found.name in others
  return len(view.shape) == 1 and y.ndim == len(view.axes) and not named


def _last(y: Array, axes: tuple[int, ...]) -> Array:
  """Return an array with some axes last, as one."""
  others = [i for i in range(y.ndim) if i not in axes]
  moved = y.transpose(*others, *axes)
  return moved.reshape(*moved.shape[: len(others)], -1)


def _kind(product: Product, before: int) -> str:
  """Return what a product does with the channels of its input."""
  view, eqn = product.view, product.eqn
  every = {axis for along in view.axes for axis in along}
  if not view.whole or every != set(range(len(view.shape))):
    return 'opaque'
  if eqn.primitive.name == 'dot_general':
    return 'opaque' if any(eqn.params['dimension_numbers'][1]) else 'mixes'
  groups = eqn.params['feature_group_count']
  if groups == 1:
    return 'mixes'
  is_depthwise = groups == before == view.shape[-1] > 1
  return 'carries' if is_depthwise else 'opaque'


def _channels(product: Product) -> tuple[int, ...]:
  """Return the axes of the output of a product that its weight gives."""
  eqn = product.eqn
  if eqn.primitive.name != 'dot_general':
    return (eqn.params['dimension_numbers'].out_spec[1],)
  contracted, batched = eqn.params['dimension_numbers']
  taken = len(contracted[product.side]) + len(batched[product.side])
  wide = eqn.invars[product.side].aval.ndim - taken
  rank = eqn.outvars[0].aval.ndim
  first = len(batched[0]) if product.side == 0 else rank - wide
  return tuple(range(first, first + wide))


def _perturbed(run: Callable[[Visit], Any]) -> list[Hit]:
  """Perturb each channel that a parameter puts out and record what changes.

  The outputs of all products but those that carry channels on, of operations of
  unknown form, and the inputs of the network, are replaced by noise of unit
  size plus the perturbation.
  """
  uses: list[Use] = []
  wide = _widths(run)
  starts = dict(
    zip(wide, itertools.accumulate(wide.values(), initial=0), strict=False)
  )

  def inputs(shift: Array) -> list[Array]:
    uses.clear()

    def visit(
      use: Use, shape: tuple[int, ...], axes: tuple[int, ...]
    ) -> Array | None:
      uses.append(use)
      if not use.width:
        return None
      noise = _noise(len(uses), shape)
      if use.width != wide[use.path]:
        return noise
      first = starts[use.path]
      own = shift[first : first + use.width]
      sides = [n if i in axes else 1 for i, n in enumerate(shape)]
      return noise + own.reshape(sides)

    ends = jax.tree.leaves(run(visit))
    return [*(use.inputs for use in uses), *map(jnp.atleast_1d, ends)]

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
  names = [(use.path, use.kind) for use in uses]
  names += [(OUTPUT, 'output')] * (len(up) - len(names))
  return [
    Hit(producer, path, kind, (a | b)[first : first + wide[producer]])
    for producer, first in starts.items()
    for (path, kind), a, b in zip(names, up, down, strict=True)
  ]


def _noise(seed: int, shape: tuple[int, ...]) -> Array:
  """Return irregular numbers in [-1, 1]; cheaper to compile than random."""
  size = math.prod(shape)
  return jnp.sin(
    (1 + jnp.arange(size, dtype=jnp.float32)) * (seed + 0.7)
  ).reshape(shape)


def _widths(run: Callable[[Visit], Any]) -> dict[Path, int]:
  """Return the channels that each parameter puts out, in their order."""
  found: dict[Path, int] = {}

  def visit(use: Use, shape: Any, axes: Any) -> None:
    del shape, axes
    if use.width:
      found[use.path] = use.width

  jax.eval_shape(lambda: run(visit))
  return found


def _changed(x: Array, base: Array) -> Array:
  """Return which channels differ anywhere, `[channels]`."""
  far = jnp.abs(x - base) > CHANGED * (1 + jnp.abs(base))
  return jnp.any(far, axis=tuple(range(far.ndim - 1)))
