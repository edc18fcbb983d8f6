"""Calls that parameters enter."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from compress.dataflow import interpreter, views
from compress.dataflow.interpreter import Data, Product, Results, Scope, bind
from compress.dataflow.views import View
from compress.tree import Array

PRODUCTS = ('dot_general', 'conv_general_dilated')
CALLS = ('closed_call', 'core_call', 'jit', 'pjit')
CUSTOM = ('custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')


def call(eqn: Any, args: list[Any], marks: list[Any], scope: Scope) -> Results:
  """Enter a call."""
  jaxpr, consts = interpreter.opened(interpreter.body_of(eqn))
  found = interpreter.evaluate(jaxpr, consts, args, marks, scope)
  return found.values, found.marks


def checkpoint(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Rebuild a rematerialized call."""
  jaxpr, consts = interpreter.opened(interpreter.body_of(eqn))
  known: list[Any] = []

  def body(*args: Array) -> Any:
    found = interpreter.evaluate(jaxpr, consts, args, marks, scope.inside())
    known[:] = found.marks
    return found.values, found.records

  options = {key: eqn.params[key] for key in ('prevent_cse', 'policy')}
  outs, records = jax.checkpoint(body, **options)(*args)
  scope.add(records)
  return outs, known


def shard_map(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Rebuild a function that is mapped over devices.

  Each device sees a part of the inputs: what the hook records there is dropped.
  """
  params = eqn.params
  jaxpr, consts = interpreter.opened(params['jaxpr'])
  axes = params.get('newly_manual_axes', params.get('manual_axes'))
  mesh = params['mesh']
  count = math.prod(mesh.shape[axis] for axis in axes)

  def body(*args: Array) -> tuple[Array, ...]:
    inside = scope.inside(count)
    found = interpreter.evaluate(jaxpr, consts, args, marks, inside)
    return tuple(found.values)

  options = {key: params[key] for key in ('mesh', 'in_specs', 'check_vma')}
  outs = jax.shard_map(
    body, out_specs=tuple(params['out_specs']), axis_names=axes, **options
  )(*args)
  return list(outs), [Data()] * len(outs)


class _Found(NamedTuple):
  """A product inside a call, and which argument of the call is its input."""

  view: View
  eqn: Any
  side: int
  place: int | None


def custom(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Bind a function that has a derivative of its own, which stays.

  The input of a product inside is changed where it enters the call.
  """
  jaxpr, _ = interpreter.opened(interpreter.body_of(eqn))
  found: list[_Found] = []
  ends = _search(jaxpr, marks, range(len(args)), found)
  if outputs := _from_outside(eqn, found, ends, args, scope):
    return outputs
  for view, *_ in found:
    scope.hook.unknown(view, 'it is inside a function with its own derivative')
  outs = bind(eqn, args)
  for view in (v for mark in marks for v in interpreter.views_of(mark)):
    outs[0] = scope.used(view, eqn.primitive.name, outs[0])
  return outs, [Data()] * len(outs)


def platform(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Bind what platforms compute in ways of their own (`platform_dependent`).

  What it is, its default says. The input of a product there is changed where
  it enters; where that is not enough, the default is entered on all platforms.
  """
  jaxpr, consts = interpreter.opened(interpreter.default_of(eqn))
  found: list[_Found] = []
  ends = _search(jaxpr, marks[1:], range(1, len(args)), found)
  if outputs := _from_outside(eqn, found, ends, args, scope):
    return outputs
  entered = interpreter.evaluate(jaxpr, consts, args[1:], marks[1:], scope)
  return entered.values, entered.marks


def _from_outside(
  eqn: Any,
  found: list[_Found],
  ends: list[int | None],
  args: list[Any],
  scope: Scope,
) -> Results | None:
  """Return the results of a call that is one product; None if it is not."""
  if len(found) != 1 or found[0].place is None or ends != [0]:
    return None
  view, inner, side, place = found[0]
  x: Array = args[found[0].place]

  def multiply(x: Array) -> Array:
    return bind(eqn, [x if i == place else arg for i, arg in enumerate(args)])[
      0
    ]

  size = inner.invars[side].aval.size
  product = Product(view, inner, side, size, scope.loops)
  y, records = scope.hook.product(product, x, multiply)
  scope.add(records)
  return [y], [Data()]


def _search(
  jaxpr: Any,
  marks: Sequence[Any],
  places: Sequence[int | None],
  found: list[_Found],
) -> list[int | None]:
  """Find the products of parameters inside a call.

  Args:
    jaxpr: The body of the call.
    marks: What is known of its arguments.
    places: Which argument of the outermost call each is.
    found: Gets the products.

  Returns:
    For each output, which of the products it is.
  """
  known = dict(zip(jaxpr.invars, marks, strict=True))
  placed = dict(zip(jaxpr.invars, places, strict=True))
  ends: dict[Any, int | None] = {}

  def look(table: dict[Any, Any], atom: Any) -> Any:
    return None if isinstance(atom, core.Literal) else table.get(atom)

  for eqn in jaxpr.eqns:
    name, out = eqn.primitive.name, eqn.outvars[0]
    first = eqn.invars[0] if eqn.invars else None
    given = [look(known, v) for v in eqn.invars]
    if name in views.LAYOUT or name == 'pad':
      if isinstance(given[0], View) and name != 'pad':
        known[out] = views.through(eqn, given[0])
      elif name in ('convert_element_type', 'copy', 'pad', 'reshape'):
        placed[out] = look(placed, first)
        ends[out] = look(ends, first)
    elif name in CALLS or name in CUSTOM:
      inner, _ = interpreter.opened(interpreter.body_of(eqn))
      at = [look(placed, v) for v in eqn.invars]
      ends.update(
        zip(eqn.outvars, _search(inner, given, at, found), strict=True)
      )
    elif default := interpreter.default_of(eqn):
      inner, _ = interpreter.opened(default)
      at = [look(placed, v) for v in eqn.invars[1:]]
      ends.update(
        zip(eqn.outvars, _search(inner, given[1:], at, found), strict=True)
      )
    elif name in PRODUCTS:
      sides = [isinstance(mark, View) for mark in given[:2]]
      if sides.count(True) == 1:
        side = sides.index(True)
        at = look(placed, eqn.invars[1 - side])
        ends[out] = len(found)
        found.append(_Found(given[side], eqn, side, at))
  return [look(ends, v) for v in jaxpr.outvars]
