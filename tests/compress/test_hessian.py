"""Traces of Hessians against the full Hessian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import hessian
from compress.method import Ctx, Probe
from tests.nets import probe_with
from tests.runs import TINY, calibrated, start


def probe_of(loss: Any) -> Probe:
  """Return a probe of a loss of `{'w': ...}`."""
  return probe_with(loss=loss, grad=jax.grad(loss))


def test_a_diagonal_quadratic_is_exact() -> None:
  bent = jnp.arange(1.0, 7.0).reshape(2, 3)
  probe = probe_of(lambda p: jnp.sum(bent * p['w'] ** 2) / 2 + p['b'][0] ** 2)
  params = {'w': jnp.ones((2, 3)), 'b': jnp.ones(1)}
  found = hessian.traces('here', params, Ctx(probe=probe), draws=1)
  np.testing.assert_allclose(found['w'], 21.0, rtol=1e-6)
  np.testing.assert_allclose(found['b'], 2.0, rtol=1e-6)


def test_traces_are_those_of_the_full_hessian() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  assert ctx.probe is not None
  found = hessian.traces('here', params, ctx, draws=400)
  kernel = params['fc']['kernel']

  def slope(flat: Any) -> Any:
    moved = {**params, 'fc': {**params['fc'], 'kernel': flat.reshape(36, 3)}}
    return ctx.probe.grad(moved)['fc']['kernel'].ravel()

  full = jax.jit(jax.jacfwd(slope))(kernel.ravel())
  want = float(jnp.trace(full))
  assert float(found['fc/kernel']) == pytest.approx(want, rel=0.1)


def test_data_is_needed() -> None:
  with pytest.raises(ValueError, match='here: expected calibration data'):
    hessian.traces('here', {}, Ctx())
