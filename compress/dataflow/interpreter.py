"""Running a traced program with a hook where parameters meet their inputs.

The jaxpr of any function of parameters and inputs is evaluated equation by
equation. Every value that is a parameter in another layout is followed
(`views`); where one meets another value in a product, the hook decides what the
product is given and what becomes of its result. Loops and rematerialized calls
are rebuilt and other calls entered, by `rules`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from jax.extend import core

from compress.dataflow import views
from compress.dataflow.views import Parts, View
from compress.tree import Array, Path

BODIES = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')

Record: TypeAlias = dict[Path, Any]
Multiply: TypeAlias = Callable[[Array], Array]
Compute: TypeAlias = Callable[[Any, tuple[Array, Array]], Array]


class Product(NamedTuple):
  """A product of a parameter and an input.

  Attributes:
    view: The parameter as it enters the product.
    eqn: `dot_general` or `conv_general_dilated`.
    side: Which operand the parameter is.
    size: Numbers of the parameter in it.
    loops: Lengths of the loops and conditionals around the equation, 0 where
      not known.
  """

  view: View
  eqn: Any
  side: int
  size: int
  loops: tuple[int, ...] = ()


class Operation(NamedTuple):
  """An operation of a parameter and inputs that is no product.

  Attributes:
    view: The parameter as it enters.
    name: Of the primitive; 'gather' of a lookup, 'weights' of a product with
      another parameter, 'carry' of what a loop begins with.
    loops: As those of a `Product`.
  """

  view: View
  name: str
  loops: tuple[int, ...] = ()


class Data(NamedTuple):
  """That a value is computed from inputs of the function."""


def _multiplied(
  product: Product, x: Array, multiply: Multiply
) -> tuple[Array, Record]:
  del product
  return multiply(x), {}


def computed(eqn: Any, operands: tuple[Array, Array]) -> Array:
  """Return what a product gives as it is."""
  found: Array = bind(eqn, operands)[0]
  return found


def _nothing(found: Operation, y: Any) -> tuple[Any, Record]:
  del found
  return y, {}


def _ignored(view: View, why: str) -> None:
  del view, why


def _last(name: str, before: Any, after: Any) -> Any:
  del name, before
  return after


def _dropped(name: str, *x: Any) -> None:
  del name, x


class Hook(NamedTuple):
  """What happens where parameters are used.

  Records are trees of arrays by any name; those of one name are merged.

  Attributes:
    product: `(product, x, multiply)` -> the output, and records. `multiply`
      gives the output for an input in place of x.
    other: `(operation, y)` -> the result y of an operation that is no product,
      as a sum with a bias, and records. The axes of y are those of the view in
      an elementwise operation.
    merge: Name, records of two uses -> one.
    along: Name, records stacked along a first axis by a loop, whether each is
      of another part of the parameter -> one, or None to drop them.
    empty: Name, shapes of a record -> that of no use at all, for conditionals
      and loops of unknown length, or None to drop it there.
    unknown: `(view, reason)`, called for products that cannot be changed.
    compute: `(eqn, operands)` -> the output of a product.
  """

  product: Callable[[Product, Array, Multiply], tuple[Array, Record]] = (
    _multiplied
  )
  other: Callable[[Operation, Any], tuple[Any, Record]] = _nothing
  merge: Callable[[str, Any, Any], Any] = _last
  along: Callable[[str, Any, bool], Any] = _dropped
  empty: Callable[[str, Any], Any] = _dropped
  unknown: Callable[[View, str], None] = _ignored
  compute: Compute = computed


class Outcome(NamedTuple):
  """Values, what is known of them, and records.

  Attributes:
    values: Arrays.
    marks: `View`, `Parts`, `Data` or None (a constant) for each.
    records: Merged, in the order of the program.
  """

  values: list[Any]
  marks: list[Any]
  records: Record


class Scope(NamedTuple):
  """Where an equation is evaluated.

  Attributes:
    hook: What happens where parameters are used.
    loops: Lengths of the loops around it.
    records: So far; `add` changes them.
    rules: Of operations that a parameter enters.
  """

  hook: Hook
  loops: tuple[int, ...]
  records: Record
  rules: Mapping[str, 'Rule']

  def inside(self, *loops: int) -> 'Scope':
    """Return a scope of its own records, in some more loops."""
    return self._replace(loops=(*self.loops, *loops), records={})

  def add(self, found: Record) -> None:
    """Merge records into those so far."""
    for name, x in found.items():
      before = self.records.get(name)
      merged = x if before is None else self.hook.merge(name, before, x)
      self.records[name] = merged

  def used(self, view: View, name: str, y: Any) -> Any:
    """Return the result of an operation as the hook gives it."""
    y, found = self.hook.other(Operation(view, name, self.loops), y)
    self.add(found)
    return y


Results: TypeAlias = tuple[list[Any], list[Any]]  # values, marks
Rule: TypeAlias = Callable[[Any, list[Any], list[Any], Scope], Results]


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
  """Return a jaxpr and its constants; jax 0.12 closes all of them."""
  inner = getattr(jaxpr, 'jaxpr', jaxpr)
  return inner, getattr(jaxpr, 'consts', ())


def default_of(eqn: Any) -> Any:
  """Return what `lax.platform_dependent` does by default; None for others."""
  is_platform = eqn.params.get('branches_platforms')
  return eqn.params['branches'][-1] if is_platform else None


def body_of(eqn: Any) -> Any:
  """Return the jaxpr that a call evaluates."""
  return next(eqn.params[key] for key in BODIES if key in eqn.params)


def evaluate(
  jaxpr: Any,
  consts: Sequence[Any],
  args: Sequence[Any],
  marks: Sequence[Any],
  scope: Scope,
) -> Outcome:
  """Evaluate a jaxpr.

  Args:
    jaxpr: An open one.
    consts: Values of its `constvars`.
    args: Values of its `invars`.
    marks: What is known of these.
    scope: Where it is evaluated; gets its records.

  Returns:
    The outputs and all records of the scope.
  """
  values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
  known: dict[Any, Any] = dict.fromkeys(jaxpr.constvars)
  values.update(zip(jaxpr.invars, args, strict=True))
  known.update(zip(jaxpr.invars, marks, strict=True))

  def read(atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  def mark(atom: Any) -> Any:
    return None if isinstance(atom, core.Literal) else known[atom]

  for eqn in jaxpr.eqns:
    given = [read(v) for v in eqn.invars], [mark(v) for v in eqn.invars]
    with eqn.ctx.manager:
      outs, new = _step(eqn, *given, scope)
    values.update(zip(eqn.outvars, outs, strict=True))
    known.update(zip(eqn.outvars, new, strict=True))
  outs, new = ([f(v) for v in jaxpr.outvars] for f in (read, mark))
  return Outcome(outs, new, scope.records)


def bind(eqn: Any, args: Sequence[Any]) -> list[Any]:
  """Apply an equation as it is."""
  out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))
  return list(out) if eqn.primitive.multiple_results else [out]


def _step(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> tuple[list[Any], list[Any]]:
  """Return the results of an equation and what is known of them."""
  name = eqn.primitive.name
  if name in scope.rules and any(isinstance(m, View | Parts) for m in marks):
    return scope.rules[name](eqn, args, marks, scope)
  outs = bind(eqn, args)
  if any(_is_program(x) for x in eqn.params.values()):
    for view in (view for mark in marks for view in views_of(mark)):
      scope.hook.unknown(view, f'it is inside {name}, which is not followed')
  if name in views.LAYOUT:
    return outs, [_moved(eqn, marks[0], scope), *[None] * (len(outs) - 1)]
  return outs, _combined(eqn, marks, outs, scope)


def _is_program(x: Any) -> bool:
  """Return whether a parameter of an equation holds equations."""
  several = x if isinstance(x, list | tuple) else (x,)
  return any(hasattr(opened(part)[0], 'eqns') for part in several)


def _moved(eqn: Any, mark: Any, scope: Scope) -> Any:
  """Return what is known of a value behind a change of layout."""
  match mark:
    case View():
      return views.through(eqn, mark)
    case Parts() if eqn.invars[0].aval.shape != eqn.outvars[0].aval.shape:
      for view in views_of(mark):
        scope.used(view, 'concatenate', None)
      return None
  return mark


def _combined(
  eqn: Any, marks: list[Any], outs: list[Any], scope: Scope
) -> list[Any]:
  """Return what is known of the results of any other operation.

  A function of a parameter and of constants that has its shape is still that
  parameter, as a kernel times a mask, or the scale of a norm times a running
  deviation.
  """
  shape = getattr(outs[0], 'shape', ())
  found = [
    view._replace(spread=view.spread or atom.aval.shape != shape)
    for atom, mark in zip(eqn.invars, marks, strict=True)
    for view in views_of(mark)
  ]
  is_data = any(isinstance(mark, Data) for mark in marks)
  if not is_data:
    own = (view for view in found if not view.spread)
    return [max(own, key=_size, default=None)] * len(outs)
  for view in found:
    outs[0] = scope.used(view, eqn.primitive.name, outs[0])
  return [Data()] * len(outs)


def views_of(mark: Any) -> tuple[View, ...]:
  """Return the views that a value holds."""
  match mark:
    case View():
      return (mark,)
    case Parts(found):
      return tuple(view for view in found if view is not None)
  return ()


def _size(view: View) -> int:
  return math.prod(view.shape)
