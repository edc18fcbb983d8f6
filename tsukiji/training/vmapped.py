"""Populations: runs that differ only in numbers, trained as one program.

Runs of one network whose settings differ in `VALUES`, in their dropout or in
their seeds have the same shapes, so that one compiled step takes them all: it
is mapped over the members, and the members are spread over the devices. A CPU
computes the convolutions of several members as grouped ones, 3.6 times as slow
as training them in turn: there they are trained in turn.
"""

import contextlib
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from compress.tree import Array
from tsukiji import interrupt
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec
from tsukiji.training import step as step_lib
from tsukiji.training import xla
from tsukiji.training.step import Plan, State

VALUES = ('label_smoothing', 'lr', 'momentum', 'weight_decay')


class Member(NamedTuple):
  """One run of a population.

  Attributes:
    settings: As `config.train`.
    seed: Of the initial weights, the order and the noise.
    dropout: Rate of all dropouts of the network; None keeps theirs.
  """

  settings: ConfigDict
  seed: int = 0
  dropout: float | None = None


def fit(
  spec: Spec, members: Sequence[Member], split: Split, steps: int
) -> list[dict[str, Any]]:
  """Train the members of a population, in one program if possible.

  Args:
    spec: The network of all.
    members: The runs.
    split: Training examples.
    steps: Of each run; early stopping is ignored.

  Returns:
    The variables of each member, as if it had been trained by itself, up to the
    rounding of floats.

  Raises:
    interrupt.Stopped: On SIGINT or SIGTERM; no progress is kept.
  """
  found: dict[int, dict[str, Any]] = {}
  for places in groups(members).values():
    group = [members[i] for i in places]
    run = train_group if is_mapped(spec) else one_by_one
    found.update(zip(places, run(spec, group, split, steps), strict=True))
  return [found[i] for i in range(len(members))]


def groups(members: Sequence[Member]) -> dict[str, list[int]]:
  """Return the indices of members that one program can train."""
  found: dict[str, list[int]] = {}
  for i, member in enumerate(members):
    same = {k: v for k, v in member.settings.items() if k not in VALUES}
    key = repr((sorted(same.items()), member.dropout is None))
    found.setdefault(key, []).append(i)
  return found


def is_mapped(spec: Spec) -> bool:
  """Return whether vmapping a network is the faster way on this backend."""
  kinds = sp.Conv | sp.Own
  wide = any(isinstance(step.layer, kinds) for step in sp.walk(spec))
  return jax.default_backend() != 'cpu' or not wide


def one_by_one(
  spec: Spec, members: Sequence[Member], split: Split, steps: int
) -> list[dict[str, Any]]:
  """Train members in turn; see `fit`."""
  found = []
  for settings, seed, dropout in members:
    own = spec if dropout is None else sp.with_dropout(spec, dropout)
    plan = step_lib.plain(own, settings, steps)
    state = step_lib.init_state(plan, net_lib.init_variables(own, seed), seed)
    order = {'batch_size': settings.batch_size, 'augment': settings.augment}
    state = step_lib.run_steps(plan, state, split, steps, seed=seed, **order)
    found.append(state.variables)
  return found


def train_group(
  spec: Spec, members: Sequence[Member], split: Split, steps: int
) -> list[dict[str, Any]]:
  """Train members of one group in one program; see `fit`."""
  state = run_group(spec, members, split, steps)
  return [
    jax.tree.map(lambda x, i=i: x[i], state.variables)
    for i in range(len(members))
  ]


def run_group(
  spec: Spec, members: Sequence[Member], split: Split, steps: int
) -> State:
  """Return the state of members of one group after so many steps, stacked.

  There may be more rows than members, so that all devices have equally many.
  """
  devices = min(len(members), jax.device_count())
  members = [*members, *[members[0]] * (-len(members) % devices)]
  shared = members[0].settings
  mesh = jax.make_mesh(
    (devices,), ('members',), (AxisType.Auto,), devices=jax.devices()[:devices]
  )
  spread = NamedSharding(mesh, PartitionSpec('members'))
  values = {
    name: np.array([member.settings[name] for member in members], np.float32)
    for name in VALUES
  }
  rates = np.array([member.dropout or 0.0 for member in members], np.float32)
  own = members[0].dropout is not None

  @functools.partial(
    jax.jit, donate_argnums=0, compiler_options=xla.options(spec)
  )
  @jax.vmap
  def step(
    state: State, values: dict[str, Array], rate: Array, x: Array, y: Array
  ) -> State:
    plan = plan_with(spec, shared, values, steps)
    with traced_dropout(rate) if own else contextlib.nullcontext():
      return step_lib.take_step(plan, state, x, y)

  state = jax.device_put(_begun(spec, members, steps), spread)
  constants = jax.device_put((values, rates), spread)
  streams = [
    batches.training(
      split, shared.batch_size, member.seed, 0, tuple(shared.augment)
    )
    for member in members
  ]
  for _ in range(steps):
    interrupt.stop_if_requested()
    drawn = zip(*map(next, streams), strict=True)
    batch = [jax.device_put(np.stack(parts), spread) for parts in drawn]
    state = step(state, *constants, *batch)
  return state


def plan_with(
  spec: Spec, settings: ConfigDict, values: dict[str, Array], steps: int
) -> Plan:
  """Return the plan of plain training in which some settings are traced."""
  traced: Any = types.SimpleNamespace(**{**settings, **values})
  return step_lib.plain(spec, traced, steps)


def _begun(spec: Spec, members: Sequence[Member], steps: int) -> State:
  states = [
    step_lib.init_state(
      step_lib.plain(spec, settings, steps),
      net_lib.init_variables(spec, seed),
      seed,
    )
    for settings, seed, _ in members
  ]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@contextlib.contextmanager
def traced_dropout(rate: Array) -> Iterator[None]:
  """Let every dropout in training have a rate that may be traced."""

  def drop(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if not isinstance(module, nn.Dropout) or module.deterministic:
      return call(*args, **kwargs)
    (x,) = args
    kept = jax.random.bernoulli(module.make_rng('dropout'), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)

  with nn.intercept_methods(drop):
    yield
