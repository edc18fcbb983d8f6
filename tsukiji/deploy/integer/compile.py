"""Compilation of a lowered network to the operations of `reference`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from compress import tree
from compress.quantize import affine
from tsukiji.deploy.integer import kernels as coded
from tsukiji.deploy.integer.fixed_point import LIMIT, fixed
from tsukiji.deploy.integer.reference import (
  Branched,
  Integer,
  Operation,
  Rescaled,
  Rounded,
  Weighted,
)
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Spec, Step

FRACTION = 24  # bits of sums of branches and of the logits
FINE = 10  # maximum bits behind the binary point of an accumulator


class Form(NamedTuple):
  """The step and the bound of an integer activation.

  Attributes:
    scale: The value of 1, float64 `[channels]`.
    bound: Upper bound of the magnitude, `[channels]`.
  """

  scale: np.ndarray
  bound: np.ndarray


def compiled(spec: Spec, variables: dict[str, Any]) -> Integer:
  """Return a network as integer operations.

  Args:
    spec: The network, lowered: without norms.
    variables: `params` whose kernels are `Quantized`, with a step per channel
      or tensor and input grids.

  Returns:
    The network.

  Raises:
    ValueError: If a layer is not supported (norms, activations but relu), a
      kernel has no codes or no input grid, or an accumulator may exceed 32
      bits.
  """
  steps, params = sp.walk(spec), tree.freeze(variables['params'])
  operations, form = _sequence(spec.layers, steps, params, None)
  if form is None:
    raise _unfit(spec.name, 'a layer with weights', 'none')
  common = float(np.max(form.scale * form.bound)) / 2**FRACTION or 1.0
  last = Rescaled(fixed(form.scale / common), -LIMIT, LIMIT)
  return Integer(spec, (*operations, last), common)


def _sequence(
  layers: tuple[Layer, ...],
  steps: Iterator[Step],
  params: Any,
  form: Form | None,
) -> tuple[tuple[Operation, ...], Form | None]:
  """Compile layers; `steps` is the walk of the network."""
  operations: list[Operation] = []
  for layer in layers:
    if isinstance(layer, sp.Branch):
      more, form = _branch(layer, steps, params, form)
      next(steps)
    else:
      more, form = _single(next(steps), params, form)
    operations += more
  return tuple(operations), form


def _single(
  step: Step, params: Any, form: Form | None
) -> tuple[list[Operation], Form | None]:
  """Compile one layer; the form is None while the input is in floats."""
  layer = step.layer
  match layer:
    case sp.Conv() | sp.Dense():
      return _multiplied(layer, params[layer.name], form)
    case sp.Dropout():
      return [], form
    case sp.Flatten():
      return [layer], form and _each_pixel(step, form)
    case sp.Standardise() if form is None:
      return [layer], None
  if form is None:
    raise _unfit('the input', 'a layer with weights', layer)
  match layer:
    case sp.Act(fn='relu'):
      return [layer], form
    case sp.Pool(kind='max'):
      return [layer], form
    case sp.Pool():
      return _summed(layer, form, int(np.prod(layer.window)))
    case sp.GlobalMean():
      return _summed(layer, form, int(np.prod(step.before[:2])))
  raise _unfit(
    getattr(layer, 'name', type(layer).__name__),
    'relu, pools and layers with weights (lower the network)',
    layer,
  )


def _each_pixel(step: Step, form: Form) -> Form:
  """Return the form with the channels of every pixel separate."""
  times_ = step.after[0] // len(form.scale)
  return Form(*(np.tile(x, times_) for x in form))


def _summed(
  layer: Layer, form: Form, count: int
) -> tuple[list[Operation], Form]:
  """Compile a mean as a sum of smaller steps, rescaled if it may overflow."""
  over = max(1.0, float(np.max(form.bound)) * count / (LIMIT / 2))
  by = 2.0 ** -np.ceil(np.log2(over))
  bound = form.bound * by + 1
  operations: list[Operation] = [layer]
  if by < 1:
    factor = fixed(np.full(form.scale.shape, by))
    operations = [Rescaled(factor, -LIMIT, LIMIT), layer]
  return operations, Form(form.scale / by / count, bound * count)


def _branch(
  layer: sp.Branch, steps: Iterator[Step], params: Any, form: Form | None
) -> tuple[list[Operation], Form]:
  """Compile paths; outputs to be added are rescaled to a step per channel."""
  if form is None:
    raise _unfit('the input', 'a layer with weights before branches', layer)
  paths: list[tuple[Operation, ...]] = []
  forms: list[Form] = []
  for path in layer.paths:
    operations, after = _sequence(path, steps, params, form)
    assert after is not None  # it was not None before the path
    paths.append(operations)
    forms.append(after)
  if layer.merge == 'concat':
    joined = Form(*(np.concatenate(x) for x in zip(*forms, strict=True)))
    return [Branched(tuple(paths), 'concat')], joined
  reach = np.sum([f.scale * f.bound for f in forms], axis=0)
  scale = np.where(reach > 0, reach, 1.0) / 2**FRACTION
  scaled = tuple(
    (*path, Rescaled(fixed(f.scale / scale), -LIMIT, LIMIT))
    for path, f in zip(paths, forms, strict=True)
  )
  bound = np.full(scale.shape, 2.0**FRACTION + len(forms))
  return [Branched(scaled, 'add')], Form(scale, bound)


def _multiplied(
  layer: sp.Conv | sp.Dense, own: dict[str, Any], form: Form | None
) -> tuple[list[Operation], Form]:
  """Compile a layer with weights and the rescaling of its input."""
  kernel = own['kernel']
  reason = coded.misfit(kernel)
  if reason is not None:
    raise _unfit(layer.name, *reason)
  (codes, scale), inputs = coded.codes(kernel), kernel.inputs
  step, zero = (
    np.asarray(x)
    for x in affine.asymmetric_scale(inputs.low, inputs.high, inputs.bits)
  )
  top, middle = 2**inputs.bits - 1, int(zero)
  first: Operation = Rounded(np.float32(step), middle, top)
  if form is not None:
    by = fixed(form.scale / float(step))
    first = Rescaled(by, -middle, top - middle)
  sizes = np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0)
  largest = sizes * float(max(middle, top - middle))
  _expect_room(layer.name, largest)
  shift = _shift(float(np.max(largest)))
  bias = np.zeros(codes.shape[-1]) + np.asarray(own.get('bias', 0.0))
  # A channel without a scale is only its bias; a large bias needs a large unit.
  least = np.maximum(np.abs(bias) / 2**FRACTION, 1e-30)
  unit = scale * float(step) / 2**shift
  unit, is_bias = np.where(scale > 0, unit, least), scale == 0
  codes = np.where(is_bias, 0, codes)
  bias_codes = np.round(bias / unit)
  bound = np.where(is_bias, 0, largest * 2.0**shift) + np.abs(bias_codes)
  _expect_room(layer.name, bound)
  done = Weighted(layer, codes, bias_codes.astype(np.int32), shift)
  return [first, done], Form(unit, bound)


def _shift(largest: float) -> int:
  """Return the number of bits by which accumulators can be shifted."""
  room = np.floor(np.log2(LIMIT / 2 / max(largest, 1.0)))
  return int(np.clip(room, 0, FINE))


def _expect_room(name: str, bound: np.ndarray) -> None:
  if not np.max(bound) <= LIMIT:
    raise _unfit(name, 'sums of at most 31 bits', f'{np.max(bound):.3g}')


def _unfit(name: str, expected: str, got: Any) -> ValueError:
  return ValueError(
    f'integer at {name}: expected {expected}, got {got!r}. Quantize weights '
    'and inputs of every layer, as quantize.int8(), and lower the network.'
  )
