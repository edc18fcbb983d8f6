"""Training: one jitted step for every network and every method.

`make_step` joins the parts: the network receives decoded weights, the optimizer
updates the trainable leaves inside the nodes, and the method receives the
gradient with respect to the decoded weights.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from compress import dataflow, tree
from compress.method import FEATURES, TEACHER, Batch, Ctx, Method, Probe, chain
from compress.tree import Array, Features, Params, Stats
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.models import net as net_lib
from tsukiji.models import ops
from tsukiji.models.net import Net
from tsukiji.models.norm_gains import gains
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, optimizer
from tsukiji.training.losses import LOSSES
from tsukiji.training.metrics import goal_of, no_labels

Out = TypeVar('Out')
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
    teacher: Function of images, for methods that require it; unjitted Flax
      where its features are required.
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
  stats: Stats | None = None,
  probe: Probe | None = None,
) -> State:
  """Return the state before the first step: the method's `init` happens here.

  Args:
    plan: The run.
    variables: `params` (arrays) and `batch_stats` to start from.
    seed: Seed of everything random in the run.
    stats: Calibration statistics, by path; see `evaluation.calibrate`.
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
  batch = _batch_shapes(plan, variables) if plan.method.requires else None
  ctx = Ctx(
    0,
    plan.steps,
    drawn,
    stats=stats,
    batch=batch,
    probe=probe,
    gains=gains(plan.spec, variables),
  )
  params = plan.method.init(variables['params'], ctx)
  trainable, _ = tree.split(params)
  return State(
    step=jnp.int32(0),
    key=jax.random.key_data(key),
    params=params,
    batch_stats=variables['batch_stats'],
    opt=plan.tx.init(trainable),
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
    compiler_options=ops.compiler_options(),
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
  at_decode, at_apply, at_method = jax.random.split(key, 3)
  ctx = Ctx(state.step, plan.steps, at_method)
  freeze_bn = plan.freeze_bn_at < 1
  bn_frozen = ctx.progress >= plan.freeze_bn_at if freeze_bn else None
  trainable, frozen = tree.split(state.params)
  dense, pull = jax.vjp(
    lambda f: tree.decode(tree.merge(f, frozen), at_decode), trainable
  )

  def loss_fn(dense: Params, trainable: Params) -> tuple[Array, Any]:
    params = tree.merge(trainable, frozen)
    (logits, batch_stats, stats), features = with_features(
      plan.method,
      lambda: _apply_train(
        plan.spec,
        {'params': dense, 'batch_stats': state.batch_stats},
        params,
        x,
        at_apply,
        bn_frozen,
      ),
    )
    batch = with_teacher(plan, Batch(x, y, logits, teacher_outputs, features))
    now = ctx._replace(stats=stats, batch=batch)
    losses = LOSSES[plan.loss].value(logits, y, plan.label_smoothing)
    loss = plan.label_weight * jnp.mean(losses) + plan.method.loss(params, now)
    return loss, (logits, batch_stats, stats)

  (loss, aux), (grads, direct) = jax.value_and_grad(
    loss_fn, argnums=(0, 1), has_aux=True
  )(dense, trainable)
  logits, batch_stats, stats = aux
  pulled = jax.tree.map(jnp.add, pull(grads)[0], direct)
  updates, opt = plan.tx.update(pulled, state.opt, trainable)
  params = tree.merge(optax.apply_updates(trainable, updates), frozen)
  now = gains(plan.spec, {'params': params, 'batch_stats': batch_stats})
  after = ctx._replace(step=state.step + 1, grads=grads, stats=stats, gains=now)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    teacher=other and take_step(other, teacher, x, y),
    params=plan.method.update(params, after),
    batch_stats=batch_stats,
    opt=opt,
    sums=state.sums + jnp.stack([loss, goal_of(plan.loss).score(logits, y)]),
    bad_step=jnp.where(
      jnp.isfinite(loss), state.bad_step, jnp.minimum(state.bad_step, ctx.step)
    ),
  )


def with_features(
  method: Method, run: Callable[[], Out]
) -> tuple[Out, Features | None]:
  """Run a network, recording layer outputs if the method requires them."""
  return (
    dataflow.features(run) if FEATURES in method.requires else (run(), None)
  )


def with_teacher(plan: Plan, batch: Batch) -> Batch:
  """Add the teacher outputs and features that the method requires."""
  teach, known = plan.teacher, {TEACHER} if batch.teacher is not None else set()
  if teach is None or plan.method.requires <= known:
    return batch
  outputs, features = with_features(plan.method, lambda: teach(batch.inputs))
  return batch._replace(teacher=outputs, teacher_features=features)


def _with_joint_teacher(plan: Plan, teacher: State | None) -> Plan:
  """Return the plan with the current state of a jointly trained teacher."""
  if plan.joint_teacher is None or teacher is None:
    return plan
  outputs = evaluate.predictor(plan.joint_teacher.spec, teacher.variables)
  return plan._replace(teacher=outputs, joint_teacher=None)


def _batch_shapes(plan: Plan, variables: dict[str, Any]) -> Batch:
  """Return the shapes of the batch that a method's loss receives."""

  def shapes(dense: dict[str, Any], x: Array) -> Batch:
    run: Callable[..., Any] = Net(plan.spec).apply
    logits, features = with_features(plan.method, lambda: run(dense, x))
    y = no_labels(plan.loss, logits)
    return with_teacher(plan, Batch(x, y, logits, features=features))

  x = jax.ShapeDtypeStruct((2, *plan.spec.input_shape), jnp.float32)
  dense = jax.eval_shape(tree.decode, variables)
  return jax.eval_shape(shapes, dense, x)


def _apply_train(
  spec: Spec,
  variables: dict[str, Any],
  params: Params,
  x: Array,
  key: Array,
  frozen: Array | None,
) -> tuple[Array, Any, Stats]:
  """Apply the network in training mode: logits, batch and input statistics."""
  (logits, mutated), stats = dataflow.apply(
    lambda: Net(spec).apply(
      variables,
      x,
      train=True,
      frozen=frozen,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    ),
    params,
  )
  return logits, mutated.get('batch_stats', variables['batch_stats']), stats


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
