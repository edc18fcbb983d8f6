"""The walk over a jaxpr that appends its operations to a graph."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from compress.dataflow.interpreter import BODIES, default_of, opened
from tsukiji.graph.builder import Builder, Value, constant
from tsukiji.graph.layout import LAYOUT, operands, split
from tsukiji.graph.nodes import Graph, input_name
from tsukiji.graph.primitives import DIRECT, ELEMENTWISE

UNKNOWN = 'unknown'
OURS = (str(pathlib.Path(__file__).parent), '<frozen')
HINTS = {
  'random_bits': 'Capture the network in evaluation mode.',
  'random_seed': 'Capture the network in evaluation mode.',
  'random_wrap': 'Capture the network in evaluation mode.',
  'threefry2x32': 'Capture the network in evaluation mode.',
  'while': 'Write it with jax.lax.scan.',
  'cond': 'Write it with jnp.where.',
}
FOLLOWED = {
  'checkpoint',
  'closed_call',
  'core_call',
  'custom_jvp_call',
  'custom_vjp_call',
  'custom_vjp_call_jaxpr',
  'jit',
  'pjit',
  'remat2',
}
SAME = {
  'copy',
  'copy_p',
  'device_put',
  'name',
  'optimization_barrier',
  'sharding_constraint',
  'stop_gradient',
}


def walk(
  builder: Builder, jaxpr: Any, consts: Sequence[Any], args: Sequence[Value]
) -> list[Value]:
  """Append the operations of a jaxpr and return its outputs."""
  known: dict[Any, Value] = {}
  for v, const in zip(jaxpr.constvars, consts, strict=True):
    known[v] = constant(const)
  known |= dict(zip(jaxpr.invars, args, strict=True))

  def read(v: Any) -> Value:
    if isinstance(v, jex.Literal):
      aval: Any = v.aval
      return constant(np.asarray(v.val, aval.dtype))
    return known[v]

  for eqn in jaxpr.eqns:
    outer, builder.where = builder.where, _where(eqn) or builder.where
    results = _taken(builder, eqn, [*map(read, eqn.invars)])
    known |= dict(zip(eqn.outvars, results, strict=True))
    builder.where = outer
  return [*map(read, jaxpr.outvars)]


def _unknown(builder: Builder, eqn: Any, xs: list[Value]) -> list[Value]:
  """Append what is an error if it is read."""
  name = eqn.primitive.name
  message = f'{name!r}{builder.where}. ' + HINTS.get(
    name, 'Write it otherwise.'
  )
  made = builder.add(UNKNOWN, *(x.ref for x in xs), message=message)
  return [
    Value(builder.add('item', made, index=i), tuple(v.aval.shape))
    for i, v in enumerate(eqn.outvars)
  ]


def _taken(builder: Builder, eqn: Any, xs: list[Value]) -> list[Value]:
  """Return the results of one operation."""
  name = eqn.primitive.name
  body = next((key for key in BODIES if key in eqn.params), None)
  if name in SEVERAL:
    return SEVERAL[name](builder, eqn, xs)
  if name == 'call_hi_primitive':  # what jax 0.12 has for frexp and others
    avals = [v.aval for v in eqn.invars]
    return walk(builder, *opened(_expanded(eqn.params['_prim'], avals)), xs)
  if name == 'platform_index':
    return [constant(np.int32(0))]
  if default := default_of(eqn):
    return walk(builder, *opened(default), xs[1:])
  if name in FOLLOWED and body:
    return walk(builder, *opened(eqn.params[body]), xs)
  if name in SAME:
    return xs[: len(eqn.outvars)]
  if name in ELEMENTWISE:
    op, attrs = ELEMENTWISE[name](eqn)
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    refs = operands(builder, xs)
    return [Value(builder.add(op, *refs, **attrs), shape)]
  if name in LAYOUT:
    return [LAYOUT[name](builder, eqn, xs)]
  if name not in DIRECT:
    return _unknown(builder, eqn, xs)
  op, attrs = DIRECT[name](eqn)
  refs = [builder.whole(x, v.aval) for x, v in zip(xs, eqn.invars, strict=True)]
  shape = tuple(eqn.outvars[0].aval.shape)
  return [Value(builder.add(op, *refs, **attrs), shape)]


def _expanded(primitive: Any, avals: Sequence[Any]) -> Any:
  """Return a primitive that is defined by others, as a jaxpr of these."""
  return jax.make_jaxpr(primitive.expand)(*avals)


def _where(eqn: Any) -> str:
  """Return the line of the user's source, as ' at net.py:12 (apply)'."""
  trace = getattr(eqn.source_info, 'traceback', None)
  for frame in getattr(trace, 'frames', ()):
    name = frame.file_name
    if not name.startswith(OURS) and 'site-packages' not in name:
      return f' at {name}:{frame.line_num} ({frame.function_name})'
  return ''


def _scan(builder: Builder, eqn: Any, xs: list[Value]) -> list[Value]:
  """Capture the body of a loop as a graph of its own."""
  jaxpr, closed = opened(eqn.params['jaxpr'])
  pairs = zip(jaxpr.outvars, eqn.outvars, strict=True)
  carry = sum(a.aval.ndim == b.aval.ndim for a, b in pairs)
  inside = Builder()
  args = [
    Value(input_name(i), tuple(v.aval.shape))
    for i, v in enumerate(jaxpr.invars)
  ]
  outs = walk(inside, jaxpr, closed, args)
  ends = [
    inside.whole(x, v.aval) for x, v in zip(outs, jaxpr.outvars, strict=True)
  ]
  body = Graph(tuple(inside.nodes), tuple(ends))
  pairs = zip(jaxpr.invars, eqn.invars, strict=True)
  whole = sum(a.aval.ndim == b.aval.ndim for a, b in pairs)
  loop = builder.add(
    'scan',
    *(builder.whole(x, v.aval) for x, v in zip(xs, eqn.invars, strict=True)),
    body=body,
    consts=whole - carry,
    carry=carry,
    length=int(eqn.params['length']),
    reverse=bool(eqn.params['reverse']),
  )
  return [
    Value(builder.add('item', loop, index=i), tuple(v.aval.shape))
    for i, v in enumerate(eqn.outvars)
  ]


SEVERAL: dict[str, Callable[[Builder, Any, list[Value]], list[Value]]] = {
  'scan': _scan,
  'split': split,
}
