"""The gains in the context are those of lowering."""

import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.channels.sliced import Sliced
from tests.runs import NETWORKS, TINY, start
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import spec as sp
from tsukiji.models.norm_gains import gains


def test_a_gain_is_a_scale_over_a_deviation() -> None:
  found = start(TINY)
  observed = found['batch_stats']['norm']['var']
  scale = np.asarray(found['params']['norm']['scale'], float)
  want = scale / np.sqrt(np.asarray(observed, float) + 1e-5)
  got = gains(TINY, found)
  assert set(got) == {'conv/kernel'}
  np.testing.assert_allclose(got['conv/kernel'], want, rtol=1e-6)


def test_a_norm_further_behind_is_none() -> None:
  conv, norm, *rest = TINY.layers
  moved = (conv, sp.Act(), norm, *rest)
  spec = sp.Spec(name='t', input_shape=TINY.input_shape, layers=moved)
  assert gains(spec, start(spec)) == {}


def test_scales_may_be_nodes() -> None:
  found = start(TINY)
  norm = found['params']['norm']
  keep = jnp.array([0, 3])
  node = Sliced(norm['scale'][keep], keep, 0, 4)
  params = {**found['params'], 'norm': {**norm, 'scale': node}}
  want = gains(TINY, found)['conv/kernel'] * jnp.array([1, 0, 0, 1])
  got = gains(TINY, {**found, 'params': params})['conv/kernel']
  np.testing.assert_allclose(got, want)


@pytest.mark.parametrize('name', NETWORKS)
def test_gains_are_of_the_norms_that_lowering_folds(name: str) -> None:
  spec = NETWORKS[name]
  variables, found = start(spec), gains(spec, start(spec))
  small, before = (
    tree.paths(x['params']) for x in (lower(spec, variables)[1], variables)
  )
  kernels = {path for path in before if path.endswith('kernel')}
  assert set(found) == {p for p in kernels if np.any(small[p] != before[p])}
  for path, gain in found.items():
    np.testing.assert_allclose(small[path], before[path] * gain, rtol=1e-6)
