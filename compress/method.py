"""The algebra: a method is three pure functions, and methods chain."""

import contextvars
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from compress import state, tree
from compress.context import FEATURES as FEATURES
from compress.context import TEACHER as TEACHER
from compress.context import Batch as Batch
from compress.context import Ctx as Ctx
from compress.context import Probe as Probe
from compress.context import Statistic as Statistic
from compress.context import Weight as Weight
from compress.context import expect_clock as expect_clock
from compress.context import expect_probe as expect_probe
from compress.context import expect_run as expect_run
from compress.context import has_input as has_input
from compress.errors import nearest, shorten
from compress.tree import Array, Params


def same(params: Params, ctx: Ctx) -> Params:
  """Return the parameters unchanged: the unit of `init` and `update`."""
  del ctx
  return params


def zero(params: Params, ctx: Ctx) -> Array:
  """Return no penalty: the unit of `loss`."""
  del params, ctx
  return jnp.zeros(())


class Method(NamedTuple):
  """A way to compress, as three pure functions.

  Attributes:
    init: Arrays -> nodes; once, outside jit; may change the tree structure.
    update: Masks, schedules, ranges; after each optimizer step, inside jit;
      may not change the tree structure.
    loss: Added to the loss of the task.
    requires: Fields of `Batch` that `loss` needs besides inputs, labels and
      outputs: `TEACHER`, `FEATURES` or both; others are not computed.
  """

  init: Callable[[Params, Ctx], Params] = same
  update: Callable[[Params, Ctx], Params] = same
  loss: Callable[[Params, Ctx], Array] = zero
  requires: frozenset[str] = frozenset()


def chain(*methods: Method) -> Method:
  """Apply methods left to right.

  Later methods compress the arrays inside the nodes of earlier ones:
  `chain(prune, quantize)` gives `Masked(FakeQuantized(w), mask)`, so a pruned
  position stays exactly 0 whatever the grid does. Each `init` is given the
  statistics of inputs under the methods before it, where the probe has them.

  Args:
    *methods: Any number of methods; none gives the unit.

  Returns:
    The composed method. `chain` is associative and `chain()` its unit.
  """
  if len(methods) == 1:
    return methods[0]

  def init(params: Params, ctx: Ctx) -> Params:
    before = params
    for method in methods:
      if method.init is not same and params is not before:
        ctx = _observed_again(params, ctx)
        before = params
      params = method.init(params, ctx)
    return params

  def update(params: Params, ctx: Ctx) -> Params:
    for method in methods:
      params = method.update(params, ctx)
    return params

  def loss(params: Params, ctx: Ctx) -> Array:
    return sum((m.loss(params, ctx) for m in methods), jnp.zeros(()))

  requires = frozenset().union(*(m.requires for m in methods))
  begins = any(m.init is not same for m in methods)
  moves = any(m.update is not same for m in methods)
  return Method(
    init if begins else same, update if moves else same, loss, requires
  )


def _observed_again(params: Params, ctx: Ctx) -> Ctx:
  """Return the context with statistics of a network that has changed."""
  if ctx.stats is None or ctx.probe is None or ctx.probe.ranges is None:
    return ctx
  return ctx._replace(stats=ctx.probe.ranges(params))


def only(where: str, method: Method) -> Method:
  r"""Restrict a method to the weights whose path matches.

  Args:
    where: A regular expression that matches a path in full, as
      `r'dense\d/kernel'`.
    method: The method to apply there.

  Returns:
    The restricted method.

  Raises:
    ValueError: If nothing matches; the message names the paths.
  """
  try:
    pattern = re.compile(where)
  except re.error as e:
    raise ValueError(
      f'only: expected a regular expression, got {shorten(where, 80)!r}. {e}.'
    ) from e

  def pick(params: Any) -> Any:
    return tree.map_paths(
      lambda path, x: x if pattern.fullmatch(path) else None, params
    )

  def inside(ctx: Ctx) -> Ctx:
    return ctx if ctx.grads is None else ctx._replace(grads=pick(ctx.grads))

  def run(part: Callable[[Params, Ctx], Params]) -> Callable[..., Params]:
    def wrapped(params: Params, ctx: Ctx) -> Params:
      _check_match(pattern, params)
      picked = part(pick(params), inside(ctx))
      done = tree.paths(picked)
      rest = tree.map_paths(lambda path, x: done.get(path, x), params)
      return state.around(state.bare(rest), picked)

    return wrapped

  def loss(params: Params, ctx: Ctx) -> Array:
    return method.loss(pick(params), inside(ctx))

  return Method(run(method.init), run(method.update), loss, method.requires)


def _check_match(pattern: re.Pattern[str], params: Params) -> None:
  names = [p for p, x in tree.paths(params).items() if tree.is_weight(x)]
  if any(pattern.fullmatch(name) for name in names):
    return
  near = nearest(pattern.pattern, names) or ['none']
  raise ValueError(
    f'only: expected a pattern that matches a weight, got '
    f'{shorten(pattern.pattern, 60)!r}. Nearest: {near[0]!r}; the weights are '
    f'{shorten(", ".join(names), 80)}.'
  )


def abstract(method: Method, params: Params, ctx: Ctx) -> Params:
  """Return the shapes that `decode . init` gives, computed only if need be."""

  def run(params: Params) -> Params:
    return tree.decode(method.init(params, ctx))

  return traced(run, params, lambda: params)


def traced(
  fn: Callable[[Any], Any], shapes: Any, values: Callable[[], Any]
) -> Any:
  """Return the shapes of `fn(x)`, computed only where they depend on values.

  Args:
    fn: A function of a tree of arrays, as an `init`.
    shapes: The tree, arrays or their shapes.
    values: Gives the tree of arrays; called if shapes are not enough.

  Returns:
    A tree of `jax.ShapeDtypeStruct`.
  """
  token = _SHAPES.set(True)
  try:
    # A function of its own, since JAX keeps what it has traced.
    return jax.eval_shape(lambda x: fn(x), shapes)
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
  ):
    pass
  finally:
    _SHAPES.reset(token)
  return jax.eval_shape(lambda x: x, fn(values()))


_SHAPES = contextvars.ContextVar('shapes', default=False)


def shapes_only() -> bool:
  """Return whether `traced` asks an `init` for shapes, of unknown values.

  What it chooses by values may then be any of the choices.
  """
  return _SHAPES.get()
