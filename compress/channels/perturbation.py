"""What a change of each channel reaches, found by perturbing a network."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels import cropping
from compress.channels.cropping import Crop
from compress.tree import Array, Params, Path

PERTURBATION = 1e3  # large for any activation of a random network
CHANGED = 1e-3  # relative; rounding errors are smaller, effects larger
_INPUT = '<input>'  # the network's, among the names of modules
_BATCH = 32  # perturbations in one batch


class Call(NamedTuple):
  """One call of a module that holds parameters."""

  module: str
  kind: str  # 'mixes', 'carries' or 'opaque'
  inputs: Array
  shape: tuple[int, ...]  # of the outputs


Visit: TypeAlias = Callable[[Call], Array | None]  # -> replaced output


class Hit(NamedTuple):
  """The effect of perturbing the channels of one module on a call.

  The outputs of the network are the module '' of kind 'output'.
  """

  producer: str
  module: str
  kind: str
  changed: np.ndarray  # [channels of the producer, channels of the input]


def hits(
  apply: Callable[[Params], Array], params: Params, shapes: dict[Path, Any]
) -> list[Hit]:
  """Return what perturbing the channels of each module changes.

  Args:
    apply: As `dependency.groups`.
    params: Arrays or nodes; only shapes are used.
    shapes: Of the decoded arrays, by path.

  Returns:
    The effects, found on the smallest input with the same structure.
  """
  drawn = _drawn(jax.eval_shape(tree.decode, params))
  small = cropping.smallest(
    lambda crop: _run(apply, drawn, shapes, _nothing, crop)
  )

  def run(params: Params, visit: Visit) -> Array:
    return _run(apply, params, shapes, visit, small)

  return _perturbed(run, drawn)


def _drawn(shapes: Params) -> Params:
  """Return random parameters, positive so that no channel is dead."""
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(generator.uniform(0.5, 1.5, x.shape), x.dtype),
    shapes,
  )


def leaves(module: str, shapes: dict[Path, Any]) -> dict[Path, Any]:
  """Return the arrays of one module, by path."""
  return {p: s for p, s in shapes.items() if p.rpartition('/')[0] == module}


def kernel(module: str) -> Path:
  """Return the path of the kernel of a module."""
  return f'{module}/kernel' if module else 'kernel'


def _kind(module: str, shapes: dict[Path, Any], before: int, after: int) -> str:
  """Return what a module does with the channels of its input."""
  own = leaves(module, shapes)
  within = f'{module}/' if module else ''
  if any(p.startswith(within) and p not in own for p in shapes):
    return 'opaque'  # parameters of its own next to those of its layers
  weights = [p for p, s in own.items() if len(s) >= 2]
  if not weights:
    each = all(s in ((), (1,), (before,)) for s in own.values())
    return 'carries' if each and before == after else 'opaque'
  if weights != [kernel(module)]:
    return 'opaque'
  *_, wide, out = shapes[weights[0]]
  if wide == 1 and before == out == after > 1:
    return 'carries'  # depthwise
  return 'mixes' if (wide, out) == (before, after) else 'opaque'


def _nothing(call: Call) -> None:
  """Visit a call without replacing its output."""
  del call


def _run(
  apply: Callable[[Params], Array],
  params: Params,
  shapes: dict[Path, Any],
  visit: Visit,
  crop: Crop,
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
    x = x if module else crop(x)
    if not module and jnp.issubdtype(x.dtype, jnp.floating):
      start = visit(Call(_INPUT, 'opaque', x, x.shape))
      x = x if start is None else start
    outputs = call(x, *rest, **kwargs)
    if module not in owners or not _is_array(outputs):
      return outputs
    kind = _kind(module, shapes, x.shape[-1], outputs.shape[-1])
    if kind == 'opaque':  # perturbations of its inner layers may leave it
      visit(Call(module, kind, outputs, outputs.shape))
    replaced = visit(Call(module, kind, x, outputs.shape))
    return outputs if replaced is None else replaced

  with nn.intercept_methods(intercept):
    return apply(params)


def _is_array(x: Any) -> bool:
  return isinstance(x, jax.Array | np.ndarray) and x.ndim > 0


def _perturbed(
  run: Callable[[Params, Visit], Array], params: Params
) -> list[Hit]:
  """Perturb each output channel of each module and record what changes.

  The outputs of all modules but those that carry channels on, and the inputs
  of the network, are replaced by noise of unit size plus the perturbation.
  """
  calls: list[Call] = []
  wide = _widths(run, params)
  starts = dict(
    zip(wide, itertools.accumulate(wide.values(), initial=0), strict=False)
  )

  def inputs(shift: Array) -> list[Array]:
    calls.clear()

    def visit(call: Call) -> Array | None:
      calls.append(call)
      if call.kind == 'carries':
        return None
      noise = _noise(len(calls), call.shape)
      if call.shape[-1] != wide[call.module]:
        return noise
      first = starts[call.module]
      return noise + shift[first : first + wide[call.module]]

    end = run(params, visit)
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
    Hit(producer, module, kind, (a | b)[first : first + wide[producer]])
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
  run: Callable[[Params, Visit], Array], params: Params
) -> dict[str, int]:
  """Return the widths of the modules to perturb, in the order of calls."""
  found: list[Call] = []
  jax.eval_shape(lambda p: run(p, found.append), params)
  return {c.module: c.shape[-1] for c in found if c.kind != 'carries'}


def _changed(x: Array, base: Array) -> Array:
  """Return which channels differ anywhere, `[channels]`."""
  far = jnp.abs(x - base) > CHANGED * (1 + jnp.abs(base))
  return jnp.any(far, axis=tuple(range(far.ndim - 1)))
