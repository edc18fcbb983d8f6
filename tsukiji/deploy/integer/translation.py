"""Operators of graphs on integers whose steps are known.

A product with a constant or a mean only changes the step. What is added or
compared has a common step; a constant is rounded to the step of the other.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tsukiji.deploy.integer import forms
from tsukiji.deploy.integer.fixed_point import LIMIT, fixed
from tsukiji.deploy.integer.forms import Form, Shape
from tsukiji.deploy.integer.reference import RESCALED
from tsukiji.graph.nodes import Node, Ref

FRACTION = 24  # bits of sums of branches and of the outputs
MOVES = {'concat', 'expand', 'reshape', 'rev', 'slice', 'transpose'}
FLOATS = {
  *MOVES,
  'add',
  'cast',
  'div',
  'mul',
  'pad',
  'sub',
}  # before the first layer


class Real(NamedTuple):
  """A value before the first layer, in floats.

  Attributes:
    ref: What gives it.
    shape: Of one example.
  """

  ref: Ref
  shape: Shape


class Held(NamedTuple):
  """A value in integers.

  Attributes:
    ref: What gives it.
    shape: Of one example.
    form: Its steps.
    layer: The layer that it follows, for errors.
  """

  ref: Ref
  shape: Shape
  form: Form
  layer: str = ''


class Writer:
  """Operations as they are found.

  Attributes:
    nodes: The operations so far.
  """

  def __init__(self) -> None:
    """Begin without operations."""
    self.nodes: list[Node] = []

  def add(self, op: str, *inputs: Ref, **attrs: Any) -> int:
    """Append an operation and return its index."""
    self.nodes.append(Node(op, inputs, attrs))
    return len(self.nodes) - 1

  def rescaled(
    self, x: Ref, factor: np.ndarray, low: int = -LIMIT, high: int = LIMIT
  ) -> int:
    """Append a rescaling of integers."""
    return self.add(RESCALED, x, *fixed(factor), low=low, high=high)


Arg: TypeAlias = Held | np.ndarray
Rule: TypeAlias = Callable[[Writer, Node, list[Arg], Shape], Held]


def translated(
  writer: Writer, node: Node, args: Sequence[Arg | Real], shape: Shape
) -> Held | Real:
  """Append an operation that is no product with weights.

  Args:
    writer: Gets it.
    node: Of the network.
    args: What it reads.
    shape: Of its result, for one example.

  Returns:
    Its result.

  Raises:
    ValueError: If it cannot be computed in integers.
  """
  held = [x for x in args if isinstance(x, Held)]
  if not held:
    if node.op not in FLOATS:
      raise unfit('the input', 'a layer with weights', node.op)
    refs = (x.ref if isinstance(x, Real | Held) else x for x in args)
    return Real(writer.add(node.op, *refs, **node.attrs), shape)
  layer = held[0].layer
  where = f'{node.op} behind {layer}'
  whole = [x for x in args if not isinstance(x, Real)]
  if node.op not in RULES or len(whole) < len(args):
    raise unfit(where, 'maxima, sums and layers with weights', node.op)
  try:
    found = RULES[node.op](writer, node, whole, shape)
  except _Unfit as e:
    raise unfit(where, *e.args) from None
  expect_room(where, found.form.bound)
  return found._replace(layer=layer)


class _Unfit(Exception):
  """What an operator expects, and what it got."""


def unfit(where: str, expected: str, got: Any) -> ValueError:
  """Return the error of what cannot be computed in integers."""
  return ValueError(
    f'integer at {where}: expected {expected}, got {got!r}. Quantize weights '
    'and inputs of every layer, as quantize.int8(), and lower the network.'
  )


def expect_room(where: str, bound: np.ndarray) -> None:
  """Raise ValueError if integers may not fit in 32 bits."""
  if not np.max(bound) <= LIMIT:
    raise unfit(where, 'sums of at most 31 bits', f'{np.max(bound):.3g}')


def _only_held(args: Sequence[Arg]) -> list[Held]:
  held = [x for x in args if isinstance(x, Held)]
  if len(held) < len(args):
    raise _Unfit('values that follow from the input', 'a constant')
  return held


def _moved(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Move and join integers, each with its own step."""
  held = _only_held(args)
  form = forms.moved(node, [x.form for x in held], [x.shape for x in held])
  at = writer.add(node.op, *(x.ref for x in held), **node.attrs)
  return Held(at, shape, form)


def _padded(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Pad with zeros."""
  x, value = args
  axes = [i for i, width in enumerate(node.attrs['widths']) if any(width)]
  zeros = isinstance(value, np.ndarray) and not value.any()
  if not (zeros and isinstance(x, Held)):
    raise _Unfit('zeros around a value', value)
  at = writer.add(node.op, x.ref, np.array(0, np.int32), **node.attrs)
  return Held(at, shape, _over(x.form, axes))


def _over(form: Form, axes: Sequence[int]) -> Form:
  found = form.over(axes)
  if found is None:
    raise _Unfit('one step along the axes', f'several along {tuple(axes)}')
  return found


def _combined(
  writer: Writer, node: Node, args: list[Arg], shape: Shape
) -> Held:
  """Add, subtract or compare integers, or one with a constant."""
  held = [x for x in args if isinstance(x, Held)]
  if len(held) == 2:
    refs, form = _common(writer, held)
    return Held(writer.add(node.op, *refs, **node.attrs), shape, form)
  form = held[0].form
  operands = [
    x.ref if isinstance(x, Held) else forms.coded(x, form) for x in args
  ]
  (codes,) = (
    operand for operand in operands if isinstance(operand, np.ndarray)
  )
  if node.op in ('max', 'min'):
    bound = np.maximum(form.bound, codes if node.op == 'max' else -codes)
  else:
    bound = form.bound + np.abs(codes)
  at = writer.add(node.op, *operands, **node.attrs)
  return Held(at, shape, Form(form.scale, bound))


def _common(writer: Writer, held: Sequence[Held]) -> tuple[list[Ref], Form]:
  """Rescale integers to a step with which their sum has few bits."""
  sizes = [x.form.scale * x.form.bound for x in held]
  reach = np.sum(np.broadcast_arrays(*sizes), axis=0)
  scale = np.where(reach > 0, reach, 1.0) / 2**FRACTION
  refs = [writer.rescaled(x.ref, x.form.scale / scale) for x in held]
  return [*refs], Form(scale, np.full(scale.shape, 2.0**FRACTION + len(held)))


def _scaled(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Multiply or divide by a constant: its sign alone changes integers."""
  x, by = args if isinstance(args[0], Held) else args[::-1]
  behind = node.op == 'div' and x is not args[0]
  if behind or not (isinstance(x, Held) and isinstance(by, np.ndarray)):
    raise _Unfit('a product with a constant', node.op)
  by, form = by.astype(np.float64), x.form
  if node.op == 'div':
    if not np.all(by):
      raise _Unfit('a divisor that is not 0', 0)
    scale = form.scale / np.abs(by)
  else:
    scale = form.scale * np.where(by == 0, 1, np.abs(by))
  sign = np.sign(by).astype(np.int32)
  at = x.ref if np.all(sign == 1) else writer.add('mul', x.ref, sign)
  return Held(at, shape, Form(scale, form.bound))


def _same(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Keep integers where floats become others."""
  (x,) = _only_held(args)
  if not node.attrs['dtype'].startswith(('float', 'bfloat')):
    raise _Unfit('floats', node.attrs['dtype'])
  return x


def _turned(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Change signs alone."""
  (x,) = _only_held(args)
  return Held(writer.add(node.op, x.ref), shape, x.form)


def _reduced(writer: Writer, node: Node, args: list[Arg], shape: Shape) -> Held:
  """Take extremes or sums over axes or windows.

  A mean is a sum of smaller steps, rescaled before if it may overflow.
  """
  (x,) = _only_held(args)
  axes, sizes = node.attrs.get('axes', ()), node.attrs.get('sizes')
  count = int(np.prod(sizes or [x.shape[axis] for axis in axes]))
  if sizes:
    pairs = zip(sizes, node.attrs['strides'], strict=True)
    axes = [i for i, pair in enumerate(pairs) if pair != (1, 1)]
  ref, form = x.ref, _over(x.form, axes)
  if node.op.endswith('sum'):
    over = max(1.0, float(np.max(form.bound)) * count / (LIMIT / 2))
    by = 2.0 ** -np.ceil(np.log2(over))
    if by < 1:
      ref = writer.rescaled(ref, np.full(form.scale.shape, by))
    form = Form(form.scale / by, (form.bound * by + 1) * count)
  at = writer.add(node.op, ref, **node.attrs)
  return Held(at, shape, form if sizes else form.without(axes))


RULES: dict[str, Rule] = {
  **dict.fromkeys(MOVES, _moved),
  **dict.fromkeys(('add', 'max', 'min', 'sub'), _combined),
  **dict.fromkeys(('div', 'mul'), _scaled),
  **{
    f'{kind}_{name}': _reduced
    for kind in ('reduce', 'reduce_window')
    for name in ('max', 'min', 'sum')
  },
  'cast': _same,
  **dict.fromkeys(('abs', 'neg'), _turned),
  'pad': _padded,
}
