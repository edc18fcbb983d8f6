"""Hints, probes and attention against formulas in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import dataflow, tree
from compress import state as state_lib
from compress.distill import features as features_lib
from compress.method import FEATURES, TEACHER, Batch, Ctx
from tests.compress.distill.test_logits import softmax
from tests.nets import Own
from tests.runs import TINY, assert_same_bits, calibrated, plan_of, start
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.training import step
from tsukiji.training import teacher as teacher_lib

PARAMS = {'fc': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}}


def drawn(*shape: int, seed: int = 0) -> Any:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def batch(mine: Any, theirs: Any, teacher: Any = None) -> Batch:
  """Return a batch whose layers 'a' and 'b' put out what is given."""
  teacher = drawn(len(theirs), 3, seed=9) if teacher is None else teacher
  y = jnp.zeros(len(mine), jnp.int32)
  features = {'a': jnp.asarray(mine)}, {'b': jnp.asarray(theirs)}
  return Batch(y, y, drawn(len(mine), 3), jnp.asarray(teacher), *features)


def begun(made: Any, observed: Batch) -> tuple[Any, Ctx]:
  ctx = Ctx(key=jax.random.key(0), batch=observed)
  return made.init(PARAMS, ctx), ctx


@pytest.mark.slow
def test_a_hint_is_regressed_by_a_learned_map() -> None:
  mine, theirs = drawn(4, 2, 2, 3), drawn(4, 2, 2, 5, seed=1)
  made = features_lib.fitnet('a', 'b', 0.5)
  assert made.requires == {TEACHER, FEATURES}
  params, ctx = begun(made, batch(mine, theirs))
  w = np.asarray(state_lib.read(params, 'hint a b'))
  assert w.shape == (3, 5)
  want = (
    0.5 * 0.5 * np.mean((theirs - np.einsum('nhwc,cd->nhwd', mine, w)) ** 2)
  )
  np.testing.assert_allclose(made.loss(params, ctx), want, rtol=1e-5)
  trainable, frozen = tree.split(params)
  grads = jax.grad(lambda f: made.loss(tree.merge(f, frozen), ctx))(trainable)
  assert np.any(state_lib.read(grads, 'hint a b'))


def test_a_probe_is_a_linear_classifier_of_means() -> None:
  mine, teacher = drawn(4, 2, 2, 3), drawn(4, 6, seed=1)
  observed = batch(mine, mine, teacher)._replace(outputs=drawn(4, 6))
  made = features_lib.probe('a', 2.0, 3.0)
  params, ctx = begun(made, observed)
  w = np.asarray(state_lib.read(params, 'probe a'))
  assert w.shape == (3 + 1, 6)
  q = softmax((mine.mean((1, 2)) @ w[:3] + w[3]) / 2)
  p = softmax(teacher / 2)
  want = 3 * 4 * (p * np.log(p / q)).sum(1).mean()
  np.testing.assert_allclose(made.loss(params, ctx), want, rtol=1e-4)


def test_attention_maps_are_normalized_squares() -> None:
  mine, theirs = drawn(4, 2, 3, 3), drawn(4, 2, 3, 5, seed=1)
  made = features_lib.attention('a', 'b', 2.0)
  params, ctx = begun(made, batch(mine, theirs))
  assert params is PARAMS
  maps = [(x.astype(float) ** 2).sum(-1).reshape(4, -1) for x in (mine, theirs)]
  maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
  want = 2 * ((maps[0] - maps[1]) ** 2).sum(1).mean()
  np.testing.assert_allclose(made.loss(params, ctx), want, rtol=1e-5)
  same = batch(mine, 3 * mine)
  np.testing.assert_allclose(made.loss({}, Ctx(batch=same)), 0, atol=1e-9)


@pytest.mark.parametrize(
  ('made', 'mine', 'theirs', 'said'),
  [
    (
      features_lib.fitnet('a', 'b', regressor=False),
      (4, 2, 2, 3),
      (4, 2, 2, 5),
      r'a \[2, 2, 3\] and b \[2, 2, 5\] .*Use regressor=True',
    ),
    (
      features_lib.fitnet('a', 'b'),
      (4, 2, 2, 3),
      (4, 5, 5, 3),
      r'equal height and width, got a \[2, 2, 3\] and b \[5, 5, 3\]',
    ),
    (
      features_lib.attention('a', 'b'),
      (4, 2, 2, 3),
      (4, 4, 4, 3),
      'as many pools',
    ),
    (
      features_lib.fitnet('b'),
      (4, 3),
      (4, 3),
      "the student, got 'b'. It has a",
    ),
    (
      features_lib.fitnet('a', 'c'),
      (4, 3),
      (4, 3),
      "the teacher, got 'c'. It has b",
    ),
  ],
)
def test_mismatched_layers_are_refused_before_training(
  made: Any, mine: Any, theirs: Any, said: str
) -> None:
  with pytest.raises(ValueError, match=said):
    begun(made, batch(drawn(*mine), drawn(*theirs)))


def test_a_teacher_without_modules_has_no_features() -> None:
  observed = batch(drawn(4, 3), drawn(4, 3))._replace(teacher_features=None)
  with pytest.raises(ValueError, match='a batch without. A teacher is jax'):
    begun(features_lib.fitnet('a', 'b'), observed)
  with pytest.raises(ValueError, match='shapes of a batch and a key'):
    features_lib.fitnet('a', 'b').init(PARAMS, Ctx())


def test_features_are_outputs_of_modules() -> None:
  x = jnp.asarray(drawn(2, 5, 5, 1))
  network = Own()
  variables = network.init(jax.random.key(0), x)
  run = lambda params, x: network.apply({**variables, 'params': params}, x)  # noqa: E731
  out, found = dataflow.features(run, variables['params'], x)
  assert {*found} == {'stem', 'body', 'norm', 'side', 'hidden', 'head'}
  np.testing.assert_array_equal(found['head'], out)
  _, want = network.apply(variables, x, capture_intermediates=True)
  for name, y in found.items():
    (module,) = want['intermediates'][name]['__call__']
    np.testing.assert_allclose(y, module, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_custom_module_can_be_the_teacher() -> None:
  """The map learns in a full step, and no file holds it."""
  network = Own()
  x = jnp.asarray(drawn(4, *TINY.input_shape))
  teacher = teacher_lib.module(network, network.init(jax.random.key(0), x))
  plan = plan_of(features_lib.fitnet('conv', 'norm', regressor=False))
  wrong = plan._replace(teacher=teacher)
  with pytest.raises(ValueError, match='expected layers of equal height'):
    step.init_state(wrong, start(TINY), 0, calibrated(TINY).probe)
  plan = plan._replace(
    method=features_lib.fitnet('fc', 'hidden'), teacher=teacher
  )
  state = step.init_state(plan, start(TINY), 0, calibrated(TINY).probe)
  before = np.asarray(state_lib.read(state.params, 'hint fc hidden'))
  assert before.shape == (3, 8)
  state = jax.tree.map(jnp.array, state)
  state = step.make_step(plan)(state, x, jnp.arange(4) % 3)
  assert np.any(state_lib.read(state.params, 'hint fc hidden') != before)
  variables = state.variables
  plain = {**variables, 'params': tree.decode(state.params)}
  assert_same_bits(tree.freeze(state.params), plain['params'])
  files = [pack.pack(*lower(TINY, v), {}) for v in (variables, plain)]
  assert files[0] == files[1]
