"""Positive homogeneity of a traced network in its channels.

A function f is positively homogeneous if f(s x) = s f(x) for s > 0, as ReLU,
pooling and sums are. Every value of a traced network is assigned a degree: 1 if
each of its channels is multiplied by the factor that multiplies some
parameters, -1 if it is divided by it, 0 if it does not change. A value without
a degree, such as the tanh of one of degree 1, is a reason why channels cannot
be scaled.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend import core

from compress import tree
from compress.dataflow import interpreter
from compress.tree import Array, Params, Path

# A degree, one of the marks below, or the reason why a value has none.
Degree: TypeAlias = int | str
PRODUCER = 2  # a parameter whose last axis, the outputs, is multiplied
CONSTANT = 3  # 0 or an infinity, which no factor changes

LAYOUT = {  # of one value; indices and shapes have degree 0
  *('broadcast_in_dim', 'convert_element_type', 'copy', 'dynamic_slice'),
  *('expand_dims', 'gather', 'optimization_barrier', 'reshape', 'rev'),
  *('slice', 'squeeze', 'stop_gradient', 'transpose'),
}
HOMOGENEOUS = {  # of one value
  *('abs', 'neg', 'cumsum', 'reduce_sum', 'reduce_max', 'reduce_min'),
  *('reduce_window_sum', 'reduce_window_max', 'reduce_window_min'),
}
JOINED = {  # of values of one degree
  *('add', 'add_any', 'max', 'min', 'pad', 'sub', 'dynamic_update_slice'),
}
COMPARED = {'eq', 'ge', 'gt', 'le', 'lt', 'ne'}
PRODUCTS = {'dot_general', 'conv_general_dilated'}
CALLS = {  # of an inner jaxpr, once
  *('jit', 'pjit', 'closed_call', 'core_call', 'checkpoint', 'remat2'),
  *('custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr'),
}
BODIES = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')


def reasons(
  apply: Callable[[Params], Array],
  params: Params,
) -> Callable[[Collection[Path], Collection[Path]], str]:
  """Return a function that says why channels cannot be scaled.

  Args:
    apply: Parameters -> outputs; traced once.
    params: A tree of arrays, or of their shapes.

  Returns:
    A function of the paths of the parameters that produce some channels and of
    the kernels that consume them. It returns '' if the outputs of the network
    stay the same when each channel is multiplied by a positive factor in the
    former and divided by it in the latter, else the operation that forbids it.
  """
  closed = jax.make_jaxpr(apply)(params)
  names = [*tree.paths(params)]
  consts = [_constant(x) for x in closed.consts]

  def reason(producers: Collection[Path], consumers: Collection[Path]) -> str:
    marks: dict[Path, Degree] = dict.fromkeys(producers, PRODUCER)
    marks |= dict.fromkeys(consumers, -1)
    found = _evaluate(closed.jaxpr, consts, [marks.get(x, 0) for x in names])
    for degree in found:
      if degree not in (0, CONSTANT):
        return degree if isinstance(degree, str) else 'the output'
    return ''

  return reason


def _evaluate(
  jaxpr: Any, consts: Sequence[Degree], args: Sequence[Degree]
) -> list[Degree]:
  """Return the degrees of the outputs of a jaxpr."""
  known: dict[Any, Degree] = {}

  def read(atom: Any) -> Degree:
    is_literal = isinstance(atom, core.Literal)
    return _constant(atom.val) if is_literal else known[atom]

  known.update(zip(jaxpr.constvars, consts, strict=True))
  known.update(zip(jaxpr.invars, args, strict=True))
  for eqn in jaxpr.eqns:
    found = _apply(eqn, [read(x) for x in eqn.invars])
    known.update(zip(eqn.outvars, found, strict=True))
  return [read(x) for x in jaxpr.outvars]


def _constant(x: Any) -> Degree:
  """Return the degree of a constant."""
  values = np.asarray(x)
  if not jax.dtypes.issubdtype(values.dtype, np.number):
    return 0
  return CONSTANT if np.all((values == 0) | np.isinf(values)) else 0


def _apply(eqn: Any, args: list[Degree]) -> list[Degree]:
  """Return the degrees of the outputs of an equation."""
  name = eqn.primitive.name
  count = len(eqn.outvars)
  for degree in args:
    if isinstance(degree, str):
      return [degree] * count
  if name in CALLS:
    inner = next(eqn.params[key] for key in BODIES if key in eqn.params)
    jaxpr, consts = interpreter.opened(inner)
    return _evaluate(jaxpr, [_constant(x) for x in consts], args)
  by_default = interpreter.default_of(eqn)
  if by_default is not None:
    jaxpr, consts = interpreter.opened(by_default)
    return _evaluate(jaxpr, [_constant(x) for x in consts], args[1:])
  if not {1, -1, PRODUCER} & {*args}:
    moved = name in LAYOUT | HOMOGENEOUS and args[0] == CONSTANT
    return [CONSTANT if moved else 0] * count
  if name in LAYOUT:
    return [args[0] if {*args[1:]} <= {0, CONSTANT} else name] * count
  if name in PRODUCTS:
    return [_product(eqn, *args)] * count
  args = [1 if degree == PRODUCER else degree for degree in args]
  return [_elementwise(name, args)] * count


def _product(eqn: Any, x: Degree, kernel: Degree) -> Degree:
  """Return the degree of a convolution or a matrix product."""
  pair = {x, kernel}
  if pair == {1, -1}:
    return 0
  if pair == {0, PRODUCER}:
    return 1
  if CONSTANT in pair:
    return CONSTANT
  # Channels of degree 1 may only be summed over if the factors cancel.
  groups = eqn.params.get('feature_group_count', 1)
  depthwise = groups > 1 and groups in eqn.invars[0].aval.shape
  is_free = depthwise and pair == {0, 1} and x == 1
  return 1 if is_free else str(eqn.primitive.name)


def _elementwise(name: str, args: list[Degree]) -> Degree:
  """Return the degree of other operations on values, some of them scaled."""
  first, *others = args
  known = {*args} - {CONSTANT}
  if name in HOMOGENEOUS:
    return first
  if name == 'concatenate' and known <= {0, 1}:
    return 1  # the factors of other channels are 1
  if name == 'select_n' and first == 0:
    known = {*others} - {CONSTANT}
    return known.pop() if len(known) == 1 else name
  if name in JOINED or name == 'concatenate':
    return known.pop() if len(known) == 1 else name
  if name in COMPARED or name == 'sign':
    return 0 if len(known) == 1 else name
  if name in ('mul', 'div') and CONSTANT in args:
    return CONSTANT if name == 'mul' or first == CONSTANT else name
  if name == 'mul' and 0 in args:
    return first or others[0]
  if name == 'div' and others == [0]:
    return first
  return name
