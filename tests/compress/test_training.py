"""Six lines in a loop of optax, on networks that nobody here wrote."""

import functools
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import compress
from compress import tree
from compress.dataflow import arranged
from tests import frameworks
from tests.devices import on_eight
from tests.runs import shapes

# Why a method cannot work on a network; every other pair does.
REASONS = {
  ('LSTM', 'filters'): 'they are computed in a loop',
  ('GRU', 'filters'): 'they are computed in a loop',
  ('nn.scan', 'filters'): 'they are computed in a loop',
  ('shared layer', 'filters'): 'Not removable: head: they are outputs',
  ('nn.scan', 'binary inputs'): 'Use a deeper network, or ends=True',
  ('nn.vmap', 'binary inputs'): 'Use a deeper network, or ends=True',
  ('shared layer', 'binary inputs'): 'Use a deeper network, or ends=True',
}


NAMES, SHORT = [*frameworks.MODELS], [*frameworks.METHODS]
# Every network twice, and every method.
ONCE = [(name, SHORT[i % len(SHORT)]) for i, name in enumerate(NAMES)]
AGAIN = [(name, SHORT[(i + 4) % len(SHORT)]) for i, name in enumerate(NAMES)]
QUICK = [pair for pair in ONCE if pair[0] in frameworks.FEW]
PAIRS = [
  *QUICK,
  *(
    pytest.param(*pair, marks=pytest.mark.slow)
    for pair in dict.fromkeys((*ONCE, *AGAIN, *REASONS))
    if pair not in QUICK
  ),
]


@pytest.mark.parametrize(('name', 'short'), PAIRS)
def test_every_method_works_or_says_why(name: str, short: str) -> None:
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    why = frameworks.check(name, frameworks.METHODS[short])
  assert not why or REASONS.get((name, short), '?') in why, why


@pytest.mark.parametrize('name', ['Equinox conv', 'Linen transformer'])
def test_zeros_are_those_asked_for(name: str) -> None:
  model, probe = frameworks.probed(name)
  params = compress.init(compress.prune.weights(0.5), model.params, probe)
  for path, x in tree.paths(compress.decode(params)).items():
    zeros = int((x == 0).sum())
    if probe.sites[path].is_weight:
      assert zeros == round(0.5 * x.size), path
    else:
      np.testing.assert_array_equal(x, tree.paths(model.params)[path])


def test_steps_are_per_output_in_every_layout() -> None:
  for name, path, outputs in (
    ('Equinox MLP', 'layers/0/weight', 8),
    ('Linen transformer', 'attention/query/kernel', 8),
    ('nn.scan', 'layers/fc/kernel', 18),
  ):
    model, probe = frameworks.probed(name)
    method = compress.only(path, compress.quantize.lsq(4, 4))
    params = compress.init(method, model.params, probe)
    node = tree.paths(params)[path]
    inside = node.w if isinstance(node, arranged.Arranged) else node
    assert inside.step.shape == (outputs,), name


def test_nothing_is_plain_training() -> None:
  model, _ = frameworks.probed('plain functions')
  batch = model.batch()
  value, grads = compress.value_and_grad(model.loss, has_aux=True)(
    model.params, batch
  )
  want = jax.value_and_grad(model.loss, has_aux=True)(model.params, batch)
  np.testing.assert_allclose(value[0], want[0][0], rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, grads.dense, want[1])
  jax.tree.map(np.testing.assert_array_equal, grads.trainable, want[1])


def test_a_loss_that_is_no_number_is_refused() -> None:
  model, _ = frameworks.probed('plain functions')
  for loss, got in (
    (model.loss, 'got tuple.*has_aux=True'),
    (lambda params, batch: model.apply(params, *batch[0]), r'got \(8, 3\)'),
  ):
    with pytest.raises(ValueError, match=got):
      compress.value_and_grad(loss)(model.params, model.batch())


def test_a_loss_without_a_batch_teaches_nothing() -> None:
  model, probe = frameworks.probed('plain functions')
  method = compress.parse('distill.kd(4.0)')
  params = compress.init(method, model.params, probe)
  loss = lambda params, batch: model.loss(params, batch)[0]  # noqa: E731
  with pytest.raises(ValueError, match='Return a compress.Batch beside'):
    compress.value_and_grad(loss, method)(params, model.batch())


def test_a_loss_without_more_returns_its_value() -> None:
  model, _ = frameworks.probed('plain functions')
  loss = lambda params, batch: model.loss(params, batch)[0]  # noqa: E731
  value, _ = compress.value_and_grad(loss)(model.params, model.batch())
  assert value.shape == ()


@pytest.mark.slow
def test_a_run_compiles_once_with_donated_and_rematerialized_arrays() -> None:
  model, probe = frameworks.probed('Linen CNN')
  method = compress.parse('prune.weights(0.5) >> quantize.lsq(4, 4)')
  params = compress.init(method, model.params, probe, steps=4)
  tx, traces = optax.sgd(0.01), []
  opt, kept = tx.init(compress.trainable(params)), shapes(params)
  loss = jax.checkpoint(model.loss)
  slope = compress.value_and_grad(loss, method, has_aux=True)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params: Any, opt: Any, i: Any) -> Any:
    traces.append(i)
    (value, _), grads = slope(params, model.batch(), step=i, steps=4)
    free = compress.trainable(params)
    updates, opt = tx.update(grads.trainable, opt, free)
    done = compress.update(method, params, updates, grads, step=i, steps=4)
    return done, opt, value

  params, opt = jax.tree.map(jnp.array, (params, opt))
  for i in range(4):
    params, opt, value = step(params, opt, jnp.int32(i))
  assert len(traces) == 1
  assert bool(jnp.isfinite(value))
  assert shapes(params) == kept


def sharded_run() -> dict[str, np.ndarray]:
  """Return decoded weights after steps on a batch over all devices."""
  model, probe = frameworks.probed('Linen CNN')
  text = 'prune.weights(0.5) >> quantize.int8()'
  method, key = compress.parse(text), jax.random.key(1)
  params = compress.init(method, model.params, probe, steps=3, key=key)
  mesh = jax.make_mesh(
    (jax.device_count(),), ('batch',), (AxisType.Auto,), devices=jax.devices()
  )
  batch = jax.device_put(
    model.batch(), NamedSharding(mesh, PartitionSpec('batch'))
  )
  params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
  tx = optax.sgd(0.1)
  opt = tx.init(compress.trainable(params))
  slope = compress.value_and_grad(model.loss, method, has_aux=True)

  @jax.jit
  def step(params: Any, opt: Any, i: Any) -> Any:
    run = {'step': i, 'steps': 3, 'key': key}
    _, grads = slope(params, batch, **run)
    free = compress.trainable(params)
    updates, opt = tx.update(grads.trainable, opt, free)
    return compress.update(method, params, updates, grads, **run), opt

  for i in range(3):
    params, opt = step(params, opt, jnp.int32(i))
  decoded = tree.paths(compress.decode(params))
  return {path: np.asarray(x) for path, x in decoded.items()}


@pytest.mark.slow
def test_eight_devices_train_as_one(tmp_path: pathlib.Path) -> None:
  found = on_eight(__name__, 'sharded_run()', tmp_path / 'eight.npz')
  for path, x in sharded_run().items():
    np.testing.assert_allclose(found[path], x, atol=1e-4, err_msg=path)
