"""Training: one jitted step for every network and every method.

`make_step` joins the parts: the network receives decoded weights, the optimizer
updates the trainable leaves inside the nodes, and the method receives the
gradient with respect to the decoded weights.
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

import compress
from compress import dataflow, probing, tree
from compress.method import FEATURES, TEACHER, Batch, Method, Probe, chain
from compress.tree import Array, Features, Params
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.models import net as net_lib
from tsukiji.models.net import Net
from tsukiji.models.norm_gains import gains
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, optimizer, xla
from tsukiji.training.losses import LOSSES
from tsukiji.training.metrics import goal_of, no_labels

NEVER = np.iinfo(np.int32).max


@struct.dataclass
class State:
  """The state of training between steps.

  Attributes:
    step: Steps taken, `()` int32.
    key: Raw data of the key that every step folds its number into.
    params: Arrays and compressed nodes.
    batch_stats: Running statistics of the norms.
    opt: State of the optimizer over the trainable leaves.
    sums: Sums over the steps of this epoch: loss and score of the batch.
    bad_step: The first step whose loss was not finite.
    teacher: State of the teacher, where it is trained jointly.
  """

  step: Array
  key: Array
  params: Params
  batch_stats: Any
  opt: optax.OptState
  sums: Array
  bad_step: Array
  teacher: Any = None

  @property
  def variables(self) -> dict[str, Any]:
    """The network itself, as Flax takes it."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


class Plan(NamedTuple):
  """A training run: the values that its compiled step depends on.

  Attributes:
    spec: The network.
    method: The compression method; `chain()` for plain training.
    tx: The optimizer.
    steps: Number of steps of the run.
    label_smoothing: Share of the label's probability given to all classes.
    teacher: Function of images, for methods that require it; a
      `jax.tree_util.Partial(apply, params)` where its features are required.
    joint_teacher: Plan of a teacher that is trained from scratch in the same
      steps, in place of `teacher`.
    loss: One of `losses.LOSSES`.
    label_weight: Weight of that loss; the method's has weight 1.
    freeze_bn_at: Fraction of the run from which norms use their running
      statistics and no longer update them, as in inference (Jacob+ 2018,
      arXiv 1712.05877, section 3.2); 1 for never.
  """

  spec: Spec
  method: Method
  tx: optax.GradientTransformation
  steps: int
  label_smoothing: float = 0.0
  teacher: Callable[[Array], Array] | None = None
  loss: str = 'cross_entropy'
  label_weight: float = 1.0
  joint_teacher: 'Plan | None' = None
  freeze_bn_at: float = 1.0


def init_state(
  plan: Plan,
  variables: dict[str, Any],
  seed: int,
  probe: Probe | None = None,
) -> State:
  """Return the state before the first step: the method's `init` happens here.

  Args:
    plan: The run.
    variables: `params` (arrays) and `batch_stats` to start from.
    seed: Seed of everything random in the run.
    probe: The probe for methods that need data; see `probe.probe`.

  Returns:
    The state.
  """
  other = plan.joint_teacher
  teacher = other and init_state(
    other, net_lib.init_variables(other.spec, seed), seed
  )
  plan = _with_joint_teacher(plan, teacher)
  key = jax.random.key(seed)
  drawn = jax.random.fold_in(key, NEVER)
  if plan.method.requires and probe is not None:
    probe = probe._replace(batch=_batch_shapes(plan, variables))
  params = compress.init(
    plan.method,
    variables['params'],
    probe,
    plan.steps,
    drawn,
    gains=gains(plan.spec, variables),
  )
  return State(
    step=jnp.int32(0),
    key=jax.random.key_data(key),
    params=params,
    batch_stats=variables['batch_stats'],
    opt=plan.tx.init(compress.trainable(params)),
    sums=jnp.zeros(2),
    bad_step=jnp.int32(NEVER),
    teacher=teacher,
  )


def make_step(plan: Plan) -> Callable[..., State]:
  """Return the jitted step `(state, images, labels, teacher) -> state`.

  `teacher` (optional) holds precomputed teacher outputs for the images. The
  state is donated. Batches may be sharded over devices: batch statistics and
  gradients are then those of the global batch.
  """
  return jax.jit(
    functools.partial(take_step, plan),
    donate_argnums=0,
    compiler_options=xla.options(plan.spec),
  )


def take_step(
  plan: Plan,
  state: State,
  x: Array,
  y: Array,
  teacher_outputs: Array | None = None,
) -> State:
  """Return the state after one step; see `make_step`, which compiles it."""
  other = plan.joint_teacher
  plan, teacher = _with_joint_teacher(plan, state.teacher), state.teacher
  key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
  at_apply, at_method = jax.random.split(key)
  run: dict[str, Any] = {'step': state.step, 'steps': plan.steps}
  run['key'] = at_method
  loss = _loss(plan, state, at_apply)
  (value, aux), grads = compress.value_and_grad(
    loss, plan.method, has_aux=True
  )(state.params, (x, y, teacher_outputs), **run)
  batch, batch_stats = aux
  updates, opt = plan.tx.update(
    grads.trainable, state.opt, compress.trainable(state.params)
  )
  params = compress.update(
    plan.method,
    state.params,
    updates,
    grads,
    **run,
    gains=lambda params: gains(
      plan.spec, {'params': params, 'batch_stats': batch_stats}
    ),
  )
  score = goal_of(plan.loss).score(batch.outputs, y)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    teacher=other and take_step(other, teacher, x, y),
    params=params,
    batch_stats=batch_stats,
    opt=opt,
    sums=state.sums + jnp.stack([value, score]),
    bad_step=jnp.where(
      jnp.isfinite(value),
      state.bad_step,
      jnp.minimum(state.bad_step, state.step),
    ),
  )


def _loss(plan: Plan, state: State, key: Array) -> Callable[..., Any]:
  """Return the loss of dense parameters in training mode.

  It gives the batch that methods compare, and the new batch statistics.
  """
  freeze_bn = plan.freeze_bn_at < 1
  done = state.step / plan.steps
  frozen = done >= plan.freeze_bn_at if freeze_bn else None

  def loss(params: Params, data: tuple[Array, Array, Any]) -> Any:
    x, y, teacher_outputs = data
    run: Callable[..., Any] = Net(plan.spec).apply
    logits, mutated = run(
      {'params': params, 'batch_stats': state.batch_stats},
      x,
      train=True,
      frozen=frozen,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    batch_stats = mutated.get('batch_stats', state.batch_stats)
    batch = with_teacher(plan, Batch(x, y, logits, teacher_outputs))
    losses = LOSSES[plan.loss].value(logits, y, plan.label_smoothing)
    return plan.label_weight * jnp.mean(losses), (batch, batch_stats)

  return loss


def with_teacher(plan: Plan, batch: Batch) -> Batch:
  """Add the teacher outputs and features that the method requires."""
  teach, known = plan.teacher, {TEACHER} if batch.teacher is not None else set()
  if teach is None or plan.method.requires <= known:
    return batch
  if FEATURES not in plan.method.requires:
    return batch._replace(teacher=teach(batch.inputs))
  outputs, found = _with_features(teach, batch.inputs)
  return batch._replace(teacher=outputs, teacher_features=found)


def _with_joint_teacher(plan: Plan, teacher: State | None) -> Plan:
  """Return the plan with the current state of a jointly trained teacher."""
  if plan.joint_teacher is None or teacher is None:
    return plan
  outputs = evaluate.predictor(plan.joint_teacher.spec, teacher.variables)
  return plan._replace(teacher=outputs, joint_teacher=None)


def _with_features(teach: Any, x: Array) -> tuple[Array, Features]:
  """Return the outputs and the features of a teacher."""
  if not isinstance(teach, jax.tree_util.Partial):
    raise ValueError(
      'teacher: expected jax.tree_util.Partial(apply, params), whose layers '
      f'are known by the paths of their parameters, got {teach!r}.'
    )
  (params,) = teach.args
  return dataflow.features(teach.func, params, x)


def _batch_shapes(plan: Plan, variables: dict[str, Any]) -> Batch | None:
  """Return the shapes of the batch that a method's loss receives."""
  spec = plan.spec
  x = jax.ShapeDtypeStruct((2, *spec.input_shape), jnp.float32)
  logits = jax.eval_shape(
    lambda params, stats, x: evaluate.applied(spec, stats)(params, x),
    jax.eval_shape(tree.decode, variables['params']),
    variables['batch_stats'],
    x,
  )

  def loss(params: Params, x: Array) -> tuple[Array, Batch]:
    outputs = evaluate.applied(spec, variables['batch_stats'])(params, x)
    y = no_labels(plan.loss, logits)
    return jnp.zeros(()), with_teacher(plan, Batch(x, y, outputs))

  return probing.batch_of(loss, variables['params'], x)


def replicated() -> NamedSharding:
  """Return the sharding that replicates an array on every device."""
  return NamedSharding(batches.over_devices().mesh, PartitionSpec())


def run_steps(
  plan: Plan, state: State, split: Split, count: int, **order: Any
) -> State:
  """Take `count` steps, without files or progress bars.

  Args:
    plan: The run.
    state: Where to start.
    split: Training examples.
    count: Number of steps.
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
  tx = optimizer.from_settings(settings, steps)
  return Plan(
    spec,
    chain(),
    tx,
    steps,
    settings.label_smoothing,
    loss=settings.loss,
    freeze_bn_at=settings.freeze_bn_at,
  )
