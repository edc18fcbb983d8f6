"""Losses against their formulas in NumPy and plain Python."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from tests.tsukiji.models.test_spec import PATIENT
from tsukiji.config import settings as settings_
from tsukiji.models import net as net_lib
from tsukiji.models import zoo
from tsukiji.training import losses, step

LOGITS = st.lists(
  st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4),
  min_size=3,
  max_size=3,
)


@settings(PATIENT, max_examples=30)
@given(LOGITS, st.lists(st.integers(0, 3), min_size=3, max_size=3))
@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.9])
def test_cross_entropy(
  smoothing: float, logits: list[list[float]], labels: list[int]
) -> None:
  z = np.array(logits)
  log_p = z - z.max(1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
  wanted = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
  expected = -(wanted * log_p).sum(1).mean()
  got = losses.cross_entropy(jnp.float32(logits), jnp.int32(labels), smoothing)
  assert float(jnp.mean(got)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(PATIENT, max_examples=10)
@given(LOGITS, st.lists(st.integers(0, 3), min_size=3, max_size=3))
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_squared_hinge(
  smoothing: float, logits: list[list[float]], labels: list[int]
) -> None:
  total = 0.0
  for row, label in zip(logits, labels, strict=True):
    for at, z in enumerate(row):
      target = 1 if at == label else -1
      mixed = (1 - smoothing) * target + smoothing * (-1 + 2 / 4)
      total += max(0.0, 1 - mixed * z) ** 2
  got = losses.squared_hinge(jnp.float32(logits), jnp.int32(labels), smoothing)
  assert float(jnp.mean(got)) == pytest.approx(total / 12, rel=1e-4, abs=1e-4)


def test_a_plan_says_which_loss() -> None:
  spec = zoo.lenet_300_100((2, 2, 1), 3)
  chosen = settings_.training(loss='squared_hinge')
  plan = step.plain(spec, chosen, 1)
  assert plan.loss == 'squared_hinge'
  state = step.init_state(plan, net_lib.init_variables(spec, 0), 0)
  x = jax.ShapeDtypeStruct((4, *spec.input_shape), jnp.float32)
  y = jax.ShapeDtypeStruct((4,), jnp.int32)
  program = str(step.make_step(plan).trace(state, x, y).jaxpr)
  # The step takes exponents for a softmax, and a hinge needs none.
  assert ' exp ' not in program
  assert {'cross_entropy', 'squared_hinge'} < set(losses.LOSSES)
