"""Weight decay reaches weights, and of compressed ones what they let decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import recipe, tree
from compress.method import Ctx
from tsukiji.config import settings
from tsukiji.training import optimizer

STEPS = 20


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_weights_decay_and_their_steps_do_not(name: str) -> None:
  chosen = settings.training(
    optimizer=name, lr=0.05, weight_decay=0.1, schedule='constant', warmup=0.0
  )
  tx = optimizer.from_settings(chosen, STEPS)
  w = jnp.linspace(-1.0, 2.0, 24).reshape(8, 3)
  params = {'b': jnp.ones(3), 'w': w}
  # Groups of four inputs have steps of their own: two axes, as weights have.
  nodes = recipe.parse('quantize.lsq(3, per=4)').init(params, Ctx())
  start, _ = tree.split(nodes)
  assert start['w'].step.ndim == 2
  after, opt = start, tx.init(start)
  for _ in range(STEPS):
    updates, opt = tx.update(jax.tree.map(jnp.zeros_like, after), opt, after)
    after = optax.apply_updates(after, updates)
  np.testing.assert_array_equal(after['w'].step, start['w'].step)
  np.testing.assert_array_equal(after['b'], start['b'])
  if name == 'adamw':
    want = (1 - 0.05 * 0.1) ** STEPS * np.asarray(w)
    np.testing.assert_allclose(after['w'].w, want, rtol=1e-5)
  else:
    assert np.all(np.abs(after['w'].w) <= np.abs(w))
    assert np.any(np.abs(after['w'].w) < 0.95 * np.abs(w))
