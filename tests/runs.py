"""Tiny networks and short runs for the laws."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import dataflow, recipe, tree
from compress.method import Batch, Ctx, Method, chain
from tsukiji.config import settings
from tsukiji.data.datasets import Split
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.graph.nodes import Graph
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net
from tsukiji.models.norm_gains import gains
from tsukiji.training import evaluate, optimizer, probe
from tsukiji.training import step as step_lib

TINY = sp.Spec(
  name='tiny',
  input_shape=(5, 5, 1),
  layers=(
    sp.Conv(name='conv', features=4, kernel=(3, 3), bias=False),
    sp.Norm(name='norm'),
    sp.Act(),
    sp.Flatten(),
    sp.Dense(name='fc', features=3),
  ),
)
NETWORKS = {
  'tsukijinet2021': zoo.tsukijinet2021(
    (10, 10, 1), 3, conv=(4, 4), kernel=3, hidden=(8,)
  ),
  'resnet': zoo.resnet((8, 8, 1), 3, widths=(4, 4)),
  'vgg': zoo.vgg((8, 8, 1), 3, widths=(4,)),
}
STEPS = 6


def images(spec: sp.Spec, count: int) -> jax.Array:
  """Return inputs of a network, drawn at random."""
  generator = np.random.default_rng(1)
  return jnp.float32(generator.normal(size=(count, *spec.input_shape)))


@functools.cache
def start(spec: sp.Spec) -> dict[str, Any]:
  """Return variables with nothing at its default, as after training."""
  shapes = jax.eval_shape(Net(spec).init, jax.random.key(0), images(spec, 1))
  generator = np.random.default_rng(0)

  def draw(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> jax.Array:
    if path[-1].key in ('scale', 'var'):
      return jnp.float32(generator.uniform(0.5, 2.0, x.shape))
    spread = 1 / np.sqrt(np.prod(x.shape[:-1])) if x.ndim > 1 else 0.3
    return jnp.float32(generator.normal(0.0, spread, x.shape))

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return {'batch_stats': {}, **drawn}


def run(spec: sp.Spec, variables: dict[str, Any], count: int = 32) -> Any:
  """Return the logits in evaluation mode, and the input statistics."""
  params = variables['params']
  found = dataflow.observed(
    evaluate.applied(spec, variables['batch_stats']),
    tree.decode(params),
    (images(spec, count),),
    dataflow.transforming(params),
  )
  return found.outputs, found.stats


def served(
  spec: sp.Spec, lowered: tuple[Graph, dict[str, Any]], count: int = 32
) -> np.ndarray:
  """Return the logits of a deployed network on the images of `run`."""
  return np.asarray(artefact.of(*lowered)(images(spec, count)))


@functools.cache
def calibrated(spec: sp.Spec) -> Ctx:
  """Return a context that holds whatever a method may look at."""

  @jax.jit
  def forward(variables: dict[str, Any]) -> Any:
    apply = evaluate.applied(spec, variables['batch_stats'])
    stats = run(spec, variables)[1]
    inputs = images(spec, 32)
    logits, features = dataflow.features(apply, variables['params'], inputs)
    return logits, stats, features

  logits, stats, features = forward(start(spec))
  labels = np.arange(len(logits)) % 3
  batch = Batch(
    images(spec, len(logits)),
    jnp.asarray(labels),
    logits,
    2 * logits,
    features,
    features,
  )
  requested = probe.probe(
    spec, start(spec), Split(np.asarray(batch.inputs), labels)
  )
  found = gains(spec, start(spec))
  return Ctx(0, STEPS, jax.random.key(2), None, stats, batch, requested, found)


def single_gradients(spec: sp.Spec, count: int) -> Any:
  """Return the gradients of the loss of single examples, stacked."""
  variables = start(spec)

  def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    outputs = Net(spec).apply({**variables, 'params': params}, x[None])[0]
    return jax.nn.logsumexp(outputs) - outputs[y]

  gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
  y = jnp.arange(count) % 3
  return gradients(variables['params'], images(spec, count), y)


@struct.dataclass
class Offset(tree.Compressed):
  """A trainable and a frozen array, both as large as weights."""

  trainable = ('w',)
  inner = ('w',)
  w: Any
  base: jax.Array

  def decode(self) -> jax.Array:
    """Return the sum."""
    return self.w + self.base


class Trained(NamedTuple):
  """A run of a few steps: where it began, its end, how often it was traced."""

  before: Any
  state: step_lib.State
  traces: int


def plan_of(method: Method) -> step_lib.Plan:
  """Return a short training run of the tiny network, with weight decay."""
  chosen = settings.training(optimizer='sgd', lr=0.01, weight_decay=0.1)
  return step_lib.Plan(
    TINY,
    method,
    optimizer.from_settings(chosen, STEPS),
    STEPS,
    teacher=evaluate.predictor(TINY, start(TINY)),
  )


def state_of(plan: step_lib.Plan) -> step_lib.State:
  """Return the state before the first step, in arrays of its own."""
  ctx = calibrated(TINY)
  state = step_lib.init_state(plan, start(TINY), 0, ctx.probe)
  return jax.tree.map(jnp.array, state)  # the step donates its argument


def fit(method: Method, **changes: Any) -> Trained:
  """Train the tiny network on noise, by a plan with some changes."""
  traces = []

  def count(params: Any, ctx: Ctx) -> Any:
    traces.append(ctx.step)
    return params

  plan = plan_of(chain(method, Method(update=count)))._replace(**changes)
  state = state_of(plan)
  before = jax.tree.map(jnp.array, state.params)
  step, x = step_lib.make_step(plan), images(TINY, 8 * STEPS)
  y = jnp.arange(len(x)) % 3
  for i in range(STEPS):
    state = step(state, x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8])
  return Trained(before, state, len(traces))


def one_shot(spec: sp.Spec, text: str) -> dict[str, Any]:
  """Return the variables of a network after a run that trains nothing."""
  compress, ctx = recipe.parse(text), calibrated(spec)

  def life(params: Any) -> Any:
    return jax.lax.fori_loop(
      1,
      STEPS + 1,
      lambda step, nodes: compress.update(nodes, ctx._replace(step=step)),
      compress.init(params, ctx),
    )

  params = start(spec)['params']
  try:
    return {**start(spec), 'params': jax.jit(life)(params)}
  except jax.errors.TracerArrayConversionError:  # sizes hang on values
    return {**start(spec), 'params': life(params)}


def turned() -> tuple[Graph, dict[str, Any]]:
  """Return the tiny network at 8 bits, lowered, whose norm turns channels."""
  variables = one_shot(TINY, 'quantize.int8()')
  gain = np.float32([1.0, -0.7, 0.0, 0.5])
  params = {
    **variables['params'],
    'norm': {**variables['params']['norm'], 'scale': gain},
  }
  return lower(TINY, {**variables, 'params': params})


def shapes(params: Any) -> list[Any]:
  """Return what a compiled step depends on: structure and types."""
  leaves, treedef = jax.tree.flatten(params)
  return [treedef, *((x.shape, x.dtype, x.weak_type) for x in leaves)]


def assert_same_bits(one: Any, other: Any) -> None:
  """Compare two trees of arrays, -0 and NaN included."""
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
