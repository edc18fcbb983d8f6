r"""Hypergradients: how the validation loss depends on settings of a training.

The derivative is carried through every step of the run beside its state,

$Z_{t+1} = \partial_w \Phi(w_t, \lambda) Z_t + \partial_\lambda \Phi(w_t,
\lambda)$

with $\Phi$ a step of the optimiser and $\lambda$ the settings (Franceschi+
2017, arXiv 1703.01785, algorithm 2: forward mode). It is exact, takes no
memory that grows with the run, and costs about as much as training once more
for every setting: right for a few of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from compress.tree import Array
from tsukiji import batches, evaluation, ops, population, train
from tsukiji.data import Split
from tsukiji.errors import expect, expect_name
from tsukiji.losses import LOSSES
from tsukiji.net import Net
from tsukiji.population import VALUES
from tsukiji.spec import Spec
from tsukiji.train import State


class Found(NamedTuple):
  """What a run found.

  Attributes:
    loss: On the validation examples, without smoothing.
    accuracy: There.
    slopes: Of the loss, by setting.
  """

  loss: float
  accuracy: float
  slopes: dict[str, float]


def find(
  spec: Spec,
  settings: ConfigDict,
  names: Sequence[str],
  split: Split,
  validation: Split,
  steps: int,
  *,
  seed: int = 0,
) -> Found:
  """Train a network, and tell how its loss depends on some settings.

  Args:
    spec: The network.
    settings: As `config.train`, with the optimiser 'sgd'.
    names: Of settings, some of `population.VALUES`.
    split: Training examples.
    validation: Examples of the loss.
    steps: Of the run.
    seed: Of weights, order and noise.

  Returns:
    The loss at the end of the run, and its slopes.

  Raises:
    ValueError: If a name is another, or the optimiser: Adam divides by the root
      of what may be 0, which has no slope.
  """
  for name in names:
    expect_name('hypergradient', name, VALUES)
  chosen = settings.optimiser
  expect('hypergradient', chosen == 'sgd', 'the optimiser sgd', chosen)
  values = {name: jnp.float32(settings[name]) for name in VALUES}
  directions = [
    {name: jnp.float32(name == along) for name in VALUES} for along in names
  ]
  along = jax.tree.map(lambda *xs: jnp.stack(xs), *directions)

  def moved(
    values: dict[str, Array], state: State, turned: Any, x: Array, y: Array
  ) -> tuple[State, Any]:
    """Take a step, and carry the derivatives of the weights with it."""
    moving = _moving(state)

    def step(values: dict[str, Array], moving: Any) -> tuple[Any, State]:
      plan = population.planned(spec, settings, values, steps)
      after = train.take_step(plan, _moved(state, moving), x, y)
      return _moving(after), after

    def slope(direction: dict[str, Array], turned: Any) -> Any:
      at, towards = (values, moving), (direction, turned)
      _, slopes, after = jax.jvp(step, at, towards, has_aux=True)
      return slopes, after

    turned, after = jax.vmap(slope, out_axes=(0, None))(along, turned)
    return after, turned

  plan = train.plain(spec, settings, steps)
  state = train.init_state(plan, train.init_variables(spec, seed), seed)
  turned = jax.tree.map(
    lambda x: jnp.zeros((len(names), *x.shape)), _moving(state)
  )
  run = jax.jit(moved, compiler_options=ops.compiler_options())
  stream = batches.training(
    split, settings.batch_size, seed, 0, tuple(settings.augment)
  )
  for _, (x, y) in zip(range(steps), stream, strict=False):
    state, turned = run(values, state, turned, x, y)
  return _judged(spec, settings.loss, state, turned, validation, names)


def _judged(
  spec: Spec,
  loss: str,
  state: State,
  turned: Any,
  validation: Split,
  names: Sequence[str],
) -> Found:
  x, y = jnp.asarray(validation.x), jnp.asarray(validation.y)

  @jax.jit
  def value(moving: Any) -> Array:
    variables = {'params': moving['params'], 'batch_stats': moving['stats']}
    apply: Any = Net(spec).apply
    return jnp.mean(LOSSES[loss].value(apply(variables, x), y, 0.0))

  found, pull = jax.vjp(value, _moving(state))
  (gradient,) = pull(jnp.ones(()))
  parts = jax.tree.map(
    lambda g, z: jnp.tensordot(z, g, g.ndim), gradient, turned
  )
  slopes = np.asarray(sum(jax.tree.leaves(parts)))
  score = evaluation.evaluate(spec, state.variables, validation, loss=loss)
  named = zip(names, slopes.tolist(), strict=True)
  return Found(float(found), score.accuracy, dict(named))


def _moving(state: State) -> dict[str, Any]:
  """Return what of a state depends on settings: its real numbers."""
  opt = [x for x in jax.tree.leaves(state.opt) if _is_real(x)]
  return {'params': state.params, 'stats': state.batch_stats, 'opt': opt}


def _moved(state: State, moving: dict[str, Any]) -> State:
  """Put back what `_moving` took out."""
  left = iter(moving['opt'])
  opt = jax.tree.map(lambda x: next(left) if _is_real(x) else x, state.opt)
  return dataclasses.replace(
    state, params=moving['params'], batch_stats=moving['stats'], opt=opt
  )


def _is_real(x: Any) -> bool:
  return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))
