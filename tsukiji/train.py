"""Training: one jitted step for every network and every method.

The seam of the whole design is `make_step`: the network sees decoded weights,
the optimiser sees the trainable leaves inside the nodes, and the gradient of
the decoded weights reaches the method for free.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from compress import forward, tree
from compress.method import Batch, Ctx, Method, chain
from compress.tree import Array, Params, Stats
from tsukiji import batches, ops
from tsukiji.data import Split
from tsukiji.net import Net
from tsukiji.spec import Spec

NEVER = np.iinfo(np.int32).max


@struct.dataclass
class State:
  """All that a run carries from one step to the next.

  Attributes:
    step: Steps taken, `()` int32.
    key: Raw data of the key that every step folds its number into.
    params: Arrays and compressed nodes.
    batch_stats: Running statistics of the norms.
    opt: State of the optimiser over the trainable leaves.
    sums: Sums over the steps of this epoch: loss, share of correct answers.
    bad_step: The first step whose loss was not finite.
  """

  step: Array
  key: Array
  params: Params
  batch_stats: Any
  opt: optax.OptState
  sums: Array
  bad_step: Array


class Plan(NamedTuple):
  """What one run does: the values that its compiled step depends on.

  Attributes:
    spec: The network.
    method: What compresses it; the unit for plain training.
    tx: The optimiser.
    steps: Length of the whole run.
    label_smoothing: Share of the label's probability given to all classes.
    teacher: Images to logits, for methods that distil; it costs nothing where
      none does, since the compiler drops what is not used.
  """

  spec: Spec
  method: Method
  tx: optax.GradientTransformation
  steps: int
  label_smoothing: float = 0.0
  teacher: Callable[[Array], Array] | None = None


def init_variables(spec: Spec, seed: int) -> dict[str, Any]:
  """Return fresh parameters and batch statistics of a network."""
  return _init(spec, jax.random.key(seed))


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: Spec, key: Array) -> dict[str, Any]:
  variables = Net(spec).init(key, jnp.zeros((1, *spec.input_shape)))
  return {'batch_stats': {}, **variables}


def shapes(spec: Spec) -> dict[str, Any]:
  """Return the shapes of `init_variables`, without computing anything."""
  return jax.eval_shape(functools.partial(_init, spec), jax.random.key(0))


def predictor(
  spec: Spec, variables: dict[str, Any]
) -> Callable[[Array], Array]:
  """Return a network as a function from images to logits, to teach with.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.

  Returns:
    The function, in evaluation mode.
  """
  params = variables['params']
  dense = {**variables, 'params': tree.decode(params)}
  return lambda x: _apply_eval(spec, params, dense, x)[0]


def _apply_eval(
  spec: Spec, params: Params, dense: dict[str, Any], x: Array
) -> tuple[Array, Stats]:
  """Apply decoded variables in evaluation mode: logits, input statistics."""
  run: Callable[[], Any] = functools.partial(Net(spec).apply, dense, x)
  return forward.apply(run, params)


def optimiser(
  settings: ml_collections.ConfigDict, steps: int
) -> optax.GradientTransformation:
  """Return the optimiser that the settings describe.

  Args:
    settings: `optimiser`, `lr`, `schedule`, `warmup` (fraction of the run),
      `momentum`, `weight_decay`, `clip` (largest gradient norm, 0 for none).
    steps: Length of the run.

  Returns:
    An optax transformation. Weight decay reaches weights alone: no biases,
    no norms, no scales; what a node holds never gets here.
  """
  lr = learning_rate(settings, steps)
  decay = functools.partial(jax.tree.map, tree.is_weight)
  match settings.optimiser:
    case 'adamw':
      tx = optax.adamw(
        lr,
        b1=settings.momentum,
        weight_decay=settings.weight_decay,
        mask=decay,
      )
    case 'sgd':
      tx = optax.chain(
        optax.add_decayed_weights(settings.weight_decay, mask=decay),
        optax.sgd(lr, momentum=settings.momentum, nesterov=True),
      )
    case other:
      raise ValueError(
        f'train.optimiser: expected adamw or sgd, got {other!r}.'
      )
  if settings.clip > 0:
    return optax.chain(optax.clip_by_global_norm(settings.clip), tx)
  return tx


def learning_rate(
  settings: ml_collections.ConfigDict, steps: int
) -> optax.Schedule:
  """Return the learning rate by step: 'constant' or 'cosine', warmed up."""
  warmup = int(settings.warmup * steps)
  match settings.schedule:
    case 'constant':
      after = optax.constant_schedule(settings.lr)
    case 'cosine':
      after = optax.cosine_decay_schedule(settings.lr, max(1, steps - warmup))
    case other:
      raise ValueError(
        f'train.schedule: expected constant or cosine, got {other!r}.'
      )
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, settings.lr, warmup)
  return optax.join_schedules([rise, after], [warmup])


def init_state(
  plan: Plan, variables: dict[str, Any], seed: int, stats: Stats | None = None
) -> State:
  """Return the state before the first step: the method's `init` happens here.

  Args:
    plan: The run.
    variables: `params` (arrays) and `batch_stats` to start from.
    seed: Seed of everything random in the run.
    stats: Calibration statistics, by path; see `calibrate`.

  Returns:
    The state.
  """
  key = jax.random.key(seed)
  ctx = Ctx(0, plan.steps, jax.random.fold_in(key, NEVER), None, stats)
  params = plan.method.init(variables['params'], ctx)
  free, _ = tree.split(params)
  return State(
    step=jnp.int32(0),
    key=jax.random.key_data(key),
    params=params,
    batch_stats=variables['batch_stats'],
    opt=plan.tx.init(free),
    sums=jnp.zeros(2),
    bad_step=jnp.int32(NEVER),
  )


def make_step(plan: Plan) -> Callable[[State, Array, Array], State]:
  """Return the jitted step `(state, images, labels) -> state`.

  The state is donated. Batches may be sharded over devices: batch statistics
  and gradients are then those of the whole batch.
  """
  return jax.jit(
    functools.partial(_step, plan),
    donate_argnums=0,
    compiler_options=ops.compiler_options(),
  )


def _step(plan: Plan, state: State, x: Array, y: Array) -> State:
  key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
  at_decode, at_apply, at_method = jax.random.split(key, 3)
  ctx = Ctx(state.step, plan.steps, at_method)
  free, held = tree.split(state.params)
  dense, pull = jax.vjp(
    lambda f: tree.decode(tree.merge(f, held), at_decode), free
  )

  def loss_fn(dense: Params, free: Params) -> tuple[Array, Any]:
    params = tree.merge(free, held)
    logits, batch_stats, stats = _apply_train(
      plan, dense, params, state.batch_stats, x, at_apply
    )
    batch = Batch(x, y, logits, plan.teacher and plan.teacher(x))
    seen = ctx._replace(stats=stats, batch=batch)
    loss = cross_entropy(logits, y, plan.label_smoothing)
    loss += plan.method.loss(params, seen)
    return loss, (logits, batch_stats, stats)

  (loss, aux), (grads, direct) = jax.value_and_grad(
    loss_fn, argnums=(0, 1), has_aux=True
  )(dense, free)
  logits, batch_stats, stats = aux
  pulled = jax.tree.map(jnp.add, pull(grads)[0], direct)
  updates, opt = plan.tx.update(pulled, state.opt, free)
  params = tree.merge(optax.apply_updates(free, updates), held)
  after = ctx._replace(step=state.step + 1, grads=grads, stats=stats)
  correct = jnp.mean(jnp.argmax(logits, -1) == y)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    params=plan.method.update(params, after),
    batch_stats=batch_stats,
    opt=opt,
    sums=state.sums + jnp.stack([loss, correct]),
    bad_step=jnp.where(
      jnp.isfinite(loss), state.bad_step, jnp.minimum(state.bad_step, ctx.step)
    ),
  )


def _apply_train(
  plan: Plan,
  dense: Params,
  params: Params,
  batch_stats: Any,
  x: Array,
  key: Array,
) -> tuple[Array, Any, Stats]:
  """Apply the network in training mode: logits, batch and input statistics."""
  variables = {'params': dense, 'batch_stats': batch_stats}
  (logits, mutated), stats = forward.apply(
    lambda: Net(plan.spec).apply(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    ),
    params,
  )
  return logits, mutated.get('batch_stats', batch_stats), stats


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
  """Return the mean cross entropy of `[batch, classes]`, labels smoothed."""
  if not smoothing:
    return jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    )
  hot = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
  return jnp.mean(optax.softmax_cross_entropy(logits, hot))


def calibrate(
  spec: Spec, variables: dict[str, Any], split: Split, examples: int = 1024
) -> Stats:
  """Return `[min, max]` of the input of each weight over some examples.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: Where the first `examples` are taken from; never the test set.
    examples: How many.

  Returns:
    The statistics, by path.
  """
  params = variables['params']
  dense = {**variables, 'params': tree.decode(params)}
  observe = jax.jit(lambda x: _apply_eval(spec, params, dense, x)[1])
  return observe(split.x[:examples])


class Score(NamedTuple):
  """How a network does on a set: mean loss and share of correct answers."""

  loss: float
  accuracy: float


def evaluate(
  spec: Spec, variables: dict[str, Any], split: Split, batch_size: int = 512
) -> Score:
  """Evaluate by masked sums, so that no example is dropped or counted twice.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: The examples.
    batch_size: Examples at a time.

  Returns:
    The mean loss and accuracy over all examples.
  """
  params = variables['params']
  dense = jax.jit(tree.decode)(params)  # once, outside the loop
  sums = np.zeros(2)
  for x, y, mask in batches.padded(split, min(batch_size, len(split.y))):
    sums += np.asarray(
      _sums(spec, params, dense, variables['batch_stats'], x, y, mask)
    )
  return Score(*(sums / len(split.y)).tolist())


@functools.partial(jax.jit, static_argnums=0)
def _sums(
  spec: Spec,
  params: Params,
  dense: Params,
  batch_stats: Any,
  x: Array,
  y: Array,
  mask: Array,
) -> Array:
  variables = {'params': dense, 'batch_stats': batch_stats}
  logits, _ = _apply_eval(spec, params, variables, x)
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
  correct = jnp.argmax(logits, -1) == y
  return jnp.stack([jnp.sum(loss * mask), jnp.sum(correct * mask)])


def replicated() -> NamedSharding:
  """Return the sharding that gives every device the whole array."""
  return NamedSharding(batches.over_devices().mesh, PartitionSpec())


def run_steps(
  plan: Plan, state: State, split: Split, count: int, **order: Any
) -> State:
  """Take `count` steps: the loop for prototypes, without files or bars.

  Args:
    plan: The run.
    state: Where to start.
    split: Training examples.
    count: How many steps.
    **order: `batch_size`, `seed`, `augment` of `batches.training`.

  Returns:
    The state after the steps.
  """
  step, sharding = make_step(plan), batches.over_devices()
  state = jax.device_put(state, replicated())
  stream = batches.training(split, step=int(state.step), **order)
  for _, (x, y) in zip(range(count), stream, strict=False):
    state = step(state, batches.place(x, sharding), batches.place(y, sharding))
  return state


def plain(spec: Spec, settings: ml_collections.ConfigDict, steps: int) -> Plan:
  """Return the plan of plain training."""
  tx = optimiser(settings, steps)
  return Plan(spec, chain(), tx, steps, settings.label_smoothing)
