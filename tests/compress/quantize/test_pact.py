"""PACT against its paper."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe, tree
from compress.quantize.pact import PactInputs, PactWeight, pact
from tests.runs import TINY, calibrated, start

X = np.linspace(-4.0, 7.0, 640, dtype=np.float32).reshape(4, 160)


def test_clips_have_the_gradient_of_the_paper() -> None:
  def loss(x: Any, top: Any) -> Any:
    return jnp.sum(X * PactInputs(top, 4, False).round(x))

  slopes = jax.grad(loss, argnums=(0, 1))(jnp.asarray(X), jnp.float32(2.5))
  np.testing.assert_array_equal(slopes[0], np.where((X > 0) & (X < 2.5), X, 0))
  assert float(slopes[1]) == pytest.approx(X[X >= 2.5].sum(), rel=1e-5)
  found = PactInputs(jnp.float32(2.5), 4, False).round(jnp.asarray(X))
  clipped = 0.5 * (np.abs(X) - np.abs(X - 2.5) + 2.5)  # equation 1
  want = np.round(clipped * 15 / 2.5) * 2.5 / 15  # equation 2
  error = np.abs(found - want)
  assert np.mean(error < 1e-5) > 0.99
  assert error.max() < 1.001 * 2.5 / 15


def test_clips_start_at_the_range_and_are_penalized() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  method = pact(4, 4, decay=0.5)
  nodes = method.init(params, ctx)
  tops = {
    p: float(x.inputs.top) for p, x in tree.find(PactWeight, nodes).items()
  }
  for path, top in tops.items():
    assert top == float(np.abs(ctx.stats[path]).max())
  want = 0.5 * sum(top**2 for top in tops.values())
  assert float(method.loss(nodes, ctx)) == pytest.approx(want, rel=1e-5)
  assert nodes['conv']['kernel'].inputs.signed
  trainable, frozen = tree.split(nodes)
  assert len(jax.tree.leaves(trainable['fc'])) == 3  # weight, end, bias
  assert jax.tree.leaves(frozen['fc']) == []


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('pact(4, 0)', 'pact: expected activation_bits from 2 to 16, got 0'),
    (
      'pact(4, 4, decay=-1)',
      'pact: expected a finite decay of at least 0, got -1',
    ),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    recipe.parse(f'quantize.{text}')
