"""The algebra: a method is three pure functions, and methods chain."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from compress import tree
from compress.errors import nearest, shorten
from compress.tree import Array, Features, Key, Params, Path, Stats

TEACHER, FEATURES = 'teacher', 'features'  # what a method may require


class Batch(NamedTuple):
  """The inputs and outputs of the network in one step.

  Attributes:
    inputs: `[batch, ...]`.
    labels: `[batch]`.
    outputs: `[batch, classes]`, or of the shape that the task has.
    teacher: Outputs of the teacher on the same inputs, where a method requires
      them.
    features: Outputs of each module of the network, by path as `'conv1'`, where
      a method requires them.
    teacher_features: Those of the teacher, where a method requires them.
  """

  inputs: Array
  labels: Array
  outputs: Array
  teacher: Array | None = None
  features: Features | None = None
  teacher_features: Features | None = None


class Weight(NamedTuple):
  """A weight of the dense network, which budgets are shares of.

  Attributes:
    shape: Of the array.
    uses: How often each entry is multiplied for one example.
  """

  shape: tuple[int, ...]
  uses: int


# (weights, gradients `[examples, *shape]` of a few single examples), both by
# path -> a pytree of sums over these examples. A probe compiles it once.
Statistic: TypeAlias = Callable[[dict[Path, Array], dict[Path, Array]], Any]


class Probe(NamedTuple):
  """Functions of the trained network on calibration data, for `init`.

  Each function takes a parameter tree of arrays or nodes; a leaf that is None,
  as under `only`, is replaced by that of the trained network.

  Attributes:
    apply: Params -> logits `[examples, classes]` of some examples, unjitted,
      to be run under `flax.linen.intercept_methods`.
    loss: Params -> mean loss over the calibration examples, `()`.
    grad: Params -> gradient of that mean loss in the decoded tree.
    reduce: Params, paths, statistic, count -> the mean of a statistic over the
      gradients of at most `count` single examples in the decoded weights at
      these paths. It is computed in parts, so that memory does not grow with
      the count.
    uses: How often each entry of a weight is multiplied for one example, by
      path: a convolution's output positions, 1 for a dense layer. In the order
      in which the network applies them.
    dense: The weights of the dense network, where a method starts from one
      that was compressed already; None where it starts from the dense one.
    milliseconds: Params -> time of one example in the lowered network; None
      where time is not measured.
    inputs: Params, observe, count -> what `observe` returns for the inputs of
      each weight (`dataflow.apply`) on `count` calibration examples, by path in
      order of execution; in parts of equally many examples, stacked: leaves
      `[parts, ...]`. None where the inputs are not known.
    ranges: Params -> `Ctx.stats` with these weights; None where not known.
  """

  apply: Callable[[Params], Array]
  loss: Callable[[Params], Array]
  grad: Callable[[Params], Params]
  reduce: Callable[[Params, tuple[Path, ...], Statistic, int], Any]
  uses: dict[Path, int]
  dense: dict[Path, Weight] | None = None
  milliseconds: Callable[[Params], float] | None = None
  inputs: Callable[[Params, Any, int], dict[Path, Any]] | None = None
  ranges: Callable[[Params], Stats] | None = None


def expect_probe(where: str, ctx: 'Ctx') -> Probe:
  """Return the probe of a context.

  Raises:
    ValueError: If there is none: the method needs data.
  """
  if ctx.probe is None:
    raise ValueError(
      f'{where}: expected calibration data, got none. Pass Ctx(probe=...), or '
      'choose what needs no data, as score="magnitude".'
    )
  return ctx.probe


def expect_clock(
  where: str, probe: Probe, others: str
) -> Callable[[Params], float]:
  """Return the function that measures milliseconds.

  Args:
    where: Name of the method, for errors.
    probe: Of the network.
    others: Budgets to give in place of a time, for the error.

  Raises:
    ValueError: If there is none.
  """
  if probe.milliseconds is None:
    raise ValueError(
      f'{where}: expected a probe that measures time, got none. Give {others}, '
      'or a Probe with milliseconds.'
    )
  return probe.milliseconds


def expect_run(where: str, ctx: 'Ctx') -> None:
  """Check that the network is trained.

  Raises:
    ValueError: If the run has no steps: the method prunes by training.
  """
  if not ctx.steps:
    raise ValueError(
      f'{where}: expected a run of some steps, got none. It prunes while the '
      'network trains; prune.weights and prune.obs need no training.'
    )


class Ctx(NamedTuple):
  """All that a method may read; nothing is global.

  Attributes:
    step: Steps taken so far, `()` int32.
    steps: Steps of the run, so that schedules are fractions of it.
    key: Randomness of this step.
    grads: Gradient of the loss in the *decoded* tree; `None` in `init`, which
      has the probe.
    stats: `[min, max]` of the input of each weight, by path.
    batch: The batch of this step in `loss`; only its shapes in `init`, where a
      method requires a teacher or features; else `None`.
    probe: The trained network on calibration data; `None` outside `init`.
    gains: Factors of the channels of a weight in the norm that follows it, in
      evaluation mode, `[channels]`, by the weight's path; `None` in `loss`.
  """

  step: Array | int = 0
  steps: int = 1
  key: Key | None = None
  grads: Params | None = None
  stats: Stats | None = None
  batch: Batch | None = None
  probe: Probe | None = None
  gains: dict[Path, Array] | None = None

  @property
  def progress(self) -> Array:
    """Fraction of the run that is done, in [0, 1]; 1 if it has no steps."""
    part = jnp.asarray(self.step) / jnp.maximum(self.steps, 1)
    return jnp.where(self.steps > 0, jnp.minimum(part, 1.0), 1.0)


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
  return Method(init if begins else same, update, loss, requires)


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
      done = tree.paths(part(pick(params), inside(ctx)))
      return tree.map_paths(lambda path, x: done.get(path, x), params)

    return wrapped

  def loss(params: Params, ctx: Ctx) -> Array:
    return method.loss(pick(params), inside(ctx))

  return Method(run(method.init), run(method.update), loss, method.requires)


def _check_match(pattern: re.Pattern[str], params: Params) -> None:
  names = [p for p, x in tree.paths(params).items() if tree.holds_weight(x)]
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
    return tree.decode(method.init(params, ctx), ctx.key)

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
  try:
    return jax.eval_shape(fn, shapes)
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
  ):
    return jax.eval_shape(lambda x: x, fn(values()))
