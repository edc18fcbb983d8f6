"""What methods may read: the step, the batch, the probe of the network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from compress.dataflow import Observer, Site
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

  Each function takes a parameter tree of arrays or nodes, as methods see them;
  a leaf that is None, as under `only`, is replaced by that of the trained
  network. `compress.probe` makes one of any function.

  Attributes:
    apply: `(params, *inputs)` -> the outputs, input grids not applied.
    examples: A few inputs of `apply`, a tuple of trees `[examples, ...]`.
    loss: Params -> mean loss over the calibration examples, `()`.
    grad: Params -> gradient of that mean loss in the decoded tree.
    reduce: Params, paths, statistic, count -> the mean of a statistic over the
      gradients of at most `count` single examples in the decoded weights at
      these paths. It is computed in parts, of fewer examples where gradients
      are large, so that memory does not grow with the count.
    sites: How each parameter is used, by path, in the order in which the
      network applies them.
    dense: The weights of the dense network, where a method starts from one
      that was compressed already; None where it starts from the dense one.
    milliseconds: Params -> time of one example in the lowered network; None
      where time is not measured.
    observe: Params, observer, count -> what a `dataflow.Observer` gives for
      the inputs of each weight on `count` calibration examples, by path in
      order of execution; in parts of equally many examples, stacked: leaves
      `[parts, ...]`. None where the inputs are not known.
    ranges: Params -> `Ctx.stats` with these weights; None where not known.
    batch: Shapes of what the loss gives methods to compare, if anything.
  """

  apply: Callable[..., Any]
  examples: tuple[Any, ...]
  loss: Callable[[Params], Array]
  grad: Callable[[Params], Params]
  reduce: Callable[[Params, tuple[Path, ...], Statistic, int], Any]
  sites: Mapping[Path, Site]
  dense: dict[Path, Weight] | None = None
  milliseconds: Callable[[Params], float] | None = None
  observe: Callable[[Params, Observer, int], dict[Path, Any]] | None = None
  ranges: Callable[[Params], Stats] | None = None
  batch: Batch | None = None

  @property
  def uses(self) -> dict[Path, int]:
    """How often each entry of a weight is multiplied for one example."""
    found = self.sites.items()
    return {path: site.uses for path, site in found if site.is_weight}


def has_input(where: str, ctx: 'Ctx', path: Path) -> bool:
  """Return whether a weight multiplies an input, which may be rounded.

  That of a lookup, such as a token, never is.

  Args:
    where: Name of the method, for errors.
    ctx: With or without a probe.
    path: Of the weight.

  Raises:
    ValueError: If there is an input that cannot be changed.
  """
  site = ctx.probe.sites.get(path) if ctx.probe else None
  if site is None or site.kind == 'gather':
    return site is None
  if site.unknown:
    raise ValueError(
      f'{where} at {path}: expected an input that can be rounded, got none: '
      f'{site.unknown}. Leave the weight out with `only`.'
    )
  return True


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
