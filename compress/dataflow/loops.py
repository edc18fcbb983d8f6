"""Loops and conditionals that parameters enter, rebuilt."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from compress.dataflow import interpreter, views
from compress.dataflow.interpreter import Data, Results, Scope
from compress.dataflow.views import Parts, View
from compress.tree import Array


class _Loop(NamedTuple):
  """The parts of a `scan`: how many constants and carried values it has."""

  consts: int
  carry: int

  def cut(self, x: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what is constant, what is carried, and what is scanned over."""
    first, second = self.consts, self.consts + self.carry
    return [*x[:first]], [*x[first:second]], [*x[second:]]


def _loop(eqn: Any, jaxpr: Any) -> _Loop:
  """Return the parts of a `scan`, from the ranks inside and outside.

  Their names among the parameters differ between versions of JAX.
  """
  carry = sum(
    inside.aval.ndim == outside.aval.ndim
    for inside, outside in zip(jaxpr.outvars, eqn.outvars, strict=True)
  )
  whole = sum(
    inside.aval.ndim == outside.aval.ndim
    for inside, outside in zip(jaxpr.invars, eqn.invars, strict=True)
  )
  return _Loop(whole - carry, carry)


def scan(eqn: Any, args: list[Any], marks: list[Any], scope: Scope) -> Results:
  """Rebuild a loop of known length."""
  jaxpr, closed = interpreter.opened(eqn.params['jaxpr'])
  loop, length = _loop(eqn, jaxpr), eqn.params['length']
  consts, init, xs = loop.cut(args)
  of_consts, of_init, of_xs = loop.cut(marks)
  inside = [*of_consts, *_carried(of_init, init, scope), *map(_entry, of_xs)]

  def body(carry: list[Array], x: list[Array]) -> Any:
    found = interpreter.evaluate(
      jaxpr,
      closed,
      [*consts, *carry, *x],
      inside,
      scope.inside(length),
    )
    ends, ys = found.values[: loop.carry], found.values[loop.carry :]
    return ends, (ys, found.records)

  options = {key: eqn.params[key] for key in ('reverse', 'unroll')}
  end, (ys, records) = jax.lax.scan(body, init, xs, length, **options)
  parts = {v.path for mark in of_xs for v in interpreter.views_of(mark)}
  along = scope.hook.along
  scope.add(_kept(lambda name, x: along(name, x, name in parts), records))
  return [*end, *ys], [Data()] * len(eqn.outvars)


def _kept(
  fn: Callable[[str, Any], Any], records: interpreter.Record
) -> interpreter.Record:
  """Return what a function makes of records, without those it drops."""
  found = ((name, fn(name, x)) for name, x in records.items())
  return {name: x for name, x in found if x is not None}


def _carried(marks: list[Any], values: list[Any], scope: Scope) -> list[Data]:
  """Return that what loops carry is computed from inputs."""
  for mark, x in zip(marks, values, strict=True):
    for view in interpreter.views_of(mark):
      scope.used(view, 'carry', x)
  return [Data()] * len(marks)


def _entry(mark: Any) -> Any:
  match mark:
    case View():
      return views.stacked(mark)
    case Parts():
      return Data()
  return mark


def while_(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  """Rebuild a loop of unknown length."""
  p, hook = eqn.params, scope.hook
  test, test_consts = interpreter.opened(p['cond_jaxpr'])
  jaxpr, consts = interpreter.opened(p['body_jaxpr'])
  first = p['cond_nconsts']
  second = first + p['body_nconsts']
  init = args[second:]
  inside = [*marks[first:second], *_carried(marks[second:], init, scope)]

  def step(carry: Sequence[Array]) -> interpreter.Outcome:
    given = [*args[first:second], *carry]
    return interpreter.evaluate(jaxpr, consts, given, inside, scope.inside(0))

  def going(state: Any) -> Array:
    given = [*args[:first], *state[0]]
    none: list[Any] = [None] * len(given)
    plain = Scope(interpreter.Hook(), (), {}, {})
    found = interpreter.evaluate(test, test_consts, given, none, plain)
    return found.values[0]

  def body(state: Any) -> Any:
    carry, before = state
    found = step(carry)
    merged = {k: hook.merge(k, x, found.records[k]) for k, x in before.items()}
    return found.values, merged

  shapes = jax.eval_shape(lambda carry: step(carry).records, init)
  start = _kept(hook.empty, shapes)
  outs, records = jax.lax.while_loop(going, body, (init, start))
  scope.add(records)
  return outs, [Data()] * len(outs)


def cond(eqn: Any, args: list[Any], marks: list[Any], scope: Scope) -> Results:
  """Rebuild a conditional."""
  hook = scope.hook
  index, *operands = args

  def take(branch: Any, operands: Sequence[Array]) -> interpreter.Outcome:
    jaxpr, consts = interpreter.opened(branch)
    return interpreter.evaluate(
      jaxpr, consts, operands, marks[1:], scope.inside(1)
    )

  branches = eqn.params['branches']
  shapes: interpreter.Record = {}
  for branch in branches:
    shapes |= jax.eval_shape(
      lambda x, branch=branch: take(branch, x).records, operands
    )

  def rebuilt(branch: Any) -> Any:
    def taken(operands: Sequence[Array]) -> Any:
      found, unused = take(branch, operands), _kept(hook.empty, shapes)
      records = {k: found.records.get(k, x) for k, x in unused.items()}
      return found.values, records

    return taken

  outs, records = jax.lax.switch(index, [*map(rebuilt, branches)], operands)
  scope.add(records)
  return outs, [Data()] * len(outs)
