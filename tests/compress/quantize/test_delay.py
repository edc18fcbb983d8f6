"""Inputs that are rounded only from a part of the run on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.method import Ctx, chain
from compress.quantize.delay import Delayed, delay
from compress.quantize.integer_codes import Quantized
from compress.quantize.uniform import uniform

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 4)), jnp.float32)

STATS = {'fc/kernel': jnp.array([-2.0, 2.0])}

PARAMS = {'fc': {'kernel': jnp.eye(4)}}


def test_inputs_are_rounded_once_the_time_has_come() -> None:
  compress = chain(delay(0.5), uniform(8, 3, momentum=0.5))
  params = compress.init(PARAMS, Ctx(0, 10, stats=STATS))
  for step in range(1, 11):
    params = compress.update(params, Ctx(step, 10, stats=STATS))
    node = params['fc']['kernel']
    met, rounded = node.transform_input(X), node.w.transform_input(X)
    assert np.any(rounded != X)
    np.testing.assert_array_equal(met, X if step < 5 else rounded)
    assert isinstance(node.freeze(), Delayed if step < 5 else type(node.w))
  assert isinstance(tree.freeze(params)['fc']['kernel'], Quantized)


def test_ranges_are_followed_before() -> None:
  compress = chain(delay(0.9), uniform(8, 3, momentum=0.5))
  params = compress.init(PARAMS, Ctx(0, 10, stats=STATS))
  observed = {'fc/kernel': jnp.array([-4.0, 6.0])}
  after = compress.update(params, Ctx(1, 10, stats=observed))['fc']['kernel']
  assert (float(after.w.inputs.low), float(after.w.inputs.high)) == (-3, 4)


def test_without_steps_inputs_are_rounded_at_once() -> None:
  for begin, steps in ((0.0, 10), (0.7, 0)):
    node = delay(begin).init(PARAMS, Ctx(0, steps))['fc']['kernel']
    assert bool(node.active)
  node = delay(0.7).init(PARAMS, Ctx(0, 10))['fc']['kernel']
  assert not bool(node.active)
  assert jax.jit(tree.freeze)({'w': node})['w'].w.shape == (4, 4)


@pytest.mark.parametrize('begin', [-0.1, 1.1])
def test_impossible_times_are_refused(begin: float) -> None:
  with pytest.raises(ValueError, match=r'delay: expected begin in \[0, 1\]'):
    delay(begin)
