"""The training step against plain gradients, formulas and loops."""

import dataclasses
import functools
import logging.handlers
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from compress import recipe, tree
from compress.method import Ctx
from compress.prune import magnitude
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Inputs
from tests.devices import on_eight
from tests.tsukiji.models.test_net import variables
from tsukiji.config import settings as st_
from tsukiji.data.datasets import Split
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.training import evaluate, optimizer, probe
from tsukiji.training import step as step_lib
from tsukiji.training.step import Plan, State

NET = sp.Spec(
  name='net',
  input_shape=(6, 6, 1),
  layers=(
    sp.Standardise(mean=(128.0,), std=(70.0,)),
    sp.Conv(name='c1', features=4, kernel=(3, 3)),
    sp.Norm(name='n1'),
    sp.Act(),
    sp.Pool(),
    sp.Flatten(),
    sp.Dropout(rate=0.25),
    sp.Dense(name='d1', features=10),
  ),
)
DENSE = sp.Spec(
  name='dense',
  input_shape=(6, 6, 1),
  layers=(
    sp.Standardise(mean=(0.0,), std=(255.0,)),
    sp.Flatten(),
    sp.Dropout(rate=0.5),
    sp.Dense(name='d1', features=10),
  ),
)
METHOD = 'prune.weights(0.5, schedule=cubic(0.0, 0.5)) >> quantize.int8()'


def examples(count: int, seed: int = 0) -> Split:
  rng = np.random.default_rng(seed)
  x = rng.integers(0, 256, (count, 6, 6, 1), np.uint8)
  return Split(x, rng.integers(0, 10, count, np.int32))


def sgd(**changes: Any) -> ConfigDict:
  defaults = {'optimizer': 'sgd', 'lr': 0.05, 'schedule': 'constant'}
  return st_.training(**(defaults | changes))


def begin(
  spec: sp.Spec, chosen: ConfigDict, steps: int, method: str = ''
) -> tuple[Plan, State]:
  """Return a plan and its first state, from drawn weights."""
  found, split = variables(spec), examples(40)
  tx = optimizer.from_settings(chosen, steps)
  made = recipe.parse(method)
  plan = Plan(spec, made, tx, steps, chosen.label_smoothing)
  requested = probe.probe(spec, found, split) if method else None
  return plan, step_lib.init_state(plan, found, 0, requested)


def arrays(state: Any) -> dict[str, np.ndarray]:
  flat, _ = jax.tree_util.tree_flatten_with_path(state)
  return {jax.tree_util.keystr(k): np.asarray(x) for k, x in flat}


WEIGHTS = {
  'fc': {'kernel': np.float32([[1, -2], [3, 4]]), 'bias': np.ones(2, 'f')},
  'norm': {'scale': np.ones(2, 'f'), 'bias': np.ones(2, 'f')},
}


@pytest.mark.parametrize(('name', 'gain'), [('adamw', 1.0), ('sgd', 1.9)])
def test_decay_applies_to_weights_only(name: str, gain: float) -> None:
  # One step on gradient g moves by -lr (g + 0.9 g) under Nesterov.
  ctx = Ctx(stats={'fc/kernel': np.float32([0, 1])})
  nodes = recipe.parse('prune.weights(0.5) >> quantize.int8()').init(
    jax.tree.map(jnp.asarray, WEIGHTS), ctx
  )
  trainable, _ = tree.split(nodes)
  tx = optimizer.from_settings(sgd(optimizer=name, lr=0.5, weight_decay=0.1), 1)
  still = jax.tree.map(jnp.zeros_like, trainable)
  updates, _ = tx.update(still, tx.init(trainable), trainable)
  moved = {k: x for k, x in arrays(updates).items() if np.any(x)}
  assert list(moved) == ["['fc']['kernel'].w.w"]
  np.testing.assert_allclose(
    *moved.values(), -0.5 * 0.1 * gain * WEIGHTS['fc']['kernel'], rtol=1e-6
  )


def test_adamw_is_its_formula() -> None:
  chosen = st_.training(
    lr=0.1, schedule='constant', momentum=0.8, weight_decay=0.3, clip=2.0
  )
  tx, rng = optimizer.from_settings(chosen, 9), np.random.default_rng(0)
  w = rng.normal(size=(3, 4))
  m, v = np.zeros_like(w), np.zeros_like(w)
  params = {'w': jnp.float32(w)}
  opt = tx.init(params)
  for t in range(1, 5):
    g = rng.normal(size=w.shape) * t
    updates, opt = tx.update({'w': jnp.float32(g)}, opt, params)
    params = optax.apply_updates(params, updates)
    g = g * min(1, 2.0 / np.linalg.norm(g))
    m, v = 0.8 * m + 0.2 * g, 0.999 * v + 0.001 * g**2
    unit = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    w = w - 0.1 * (unit + 0.3 * w)
  np.testing.assert_allclose(params['w'], w, rtol=1e-4)


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
@pytest.mark.parametrize('warmup', [0.0, 0.25])
def test_learning_rate(schedule: str, warmup: float) -> None:
  steps, top = 40, 0.5
  rate = optimizer.learning_rate(
    st_.training(lr=top, schedule=schedule, warmup=warmup), steps
  )
  rise = int(warmup * steps)
  for step in range(steps + 1):
    done = (step - rise) / (steps - rise)
    expected = (
      top if schedule == 'constant' else top * 0.5 * (1 + np.cos(np.pi * done))
    )
    if step < rise:
      expected = top * step / rise
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize('field', ['optimizer', 'schedule'])
def test_unknown_choices_are_refused(field: str) -> None:
  with pytest.raises(ValueError, match=f"train.{field}: .* got 'addam'"):
    optimizer.from_settings(sgd(**{field: 'addam'}), 5)


STILL = dataclasses.replace(
  NET, layers=tuple(x for x in NET.layers if not isinstance(x, sp.Dropout))
)


@pytest.mark.slow
def test_a_step_without_nodes_is_a_plain_gradient() -> None:
  found, split = variables(STILL), examples(12)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def plain(params: Any) -> tuple[Any, Any]:
    logits, mutated = Net(STILL).apply(
      found | {'params': params}, split.x, True, mutable=['batch_stats']
    )
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.mean(log_p[jnp.arange(12), split.y])
    return loss, (logits, mutated['batch_stats'])

  (loss, (logits, stats)), grads = jax.jit(plain)(found['params'])
  chosen = sgd(momentum=0.0, weight_decay=0.0, lr=0.5)
  plan, state = begin(STILL, chosen, 2)
  after = step_lib.make_step(plan)(state, *split)
  params = jax.tree.map(lambda w, g: w - 0.5 * g, found['params'], grads)
  same = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
  jax.tree.map(same, after.params, params)
  jax.tree.map(same, after.batch_stats, stats)
  correct = np.mean(np.argmax(logits, 1) == split.y)
  np.testing.assert_allclose(after.sums, [loss, correct], rtol=1e-5)
  assert (int(after.step), int(after.bad_step)) == (1, step_lib.NEVER)


@pytest.mark.slow
def test_a_step_moves_what_the_nodes_let_go() -> None:
  chosen = sgd(momentum=0.0, weight_decay=0.0, lr=0.5)
  plan, state = begin(DENSE, chosen, 2, 'prune.weights(0.5)')
  before = np.asarray(state.params['d1']['kernel'].w)
  mask = np.asarray(state.params['d1']['kernel'].mask)
  after = step_lib.make_step(plan)(state, *examples(12))
  moved = after.params['d1']['kernel']
  np.testing.assert_array_equal(moved.mask, mask)
  still = np.asarray(moved.w) == before
  assert still[~mask].all() and not still[mask].any()


def test_the_first_bad_step_is_kept() -> None:
  plan, state = begin(DENSE, sgd(), 4)
  step, split = step_lib.make_step(plan), examples(8)
  x = split.x.astype(np.float32)
  bad = np.where(np.arange(8)[:, None, None, None] == 3, np.nan, x)
  observed = []
  for images in (x, bad, bad):
    state = step(state, images, split.y)
    observed.append(int(state.bad_step))
  assert observed == [step_lib.NEVER, 1, 1]


def test_dropout_differs_by_step_and_seed() -> None:
  losses, chosen = [], sgd(lr=1e-30, weight_decay=0.0)
  step = step_lib.make_step(begin(DENSE, chosen, 4)[0])
  for seed in (0, 1):
    _, state = begin(DENSE, chosen, 4)
    key = jax.random.key_data(jax.random.key(seed))
    state, sums = state.replace(key=key), 0.0
    for _ in range(2):
      state = step(state, *examples(8))
      losses.append(float(state.sums[0]) - sums)
      sums = float(state.sums[0])
  assert len(set(losses)) == 4


@pytest.mark.parametrize('batch_size', [1, 7, 23, 512])
def test_evaluate_counts_every_example_once(batch_size: int) -> None:
  found, split = variables(NET), examples(23)
  logits = np.float64(jax.jit(Net(NET).apply)(found, split.x))
  peak = logits.max(1)
  log_sum = peak + np.log(np.exp(logits - peak[:, None]).sum(1))
  loss = np.mean(log_sum - logits[np.arange(23), split.y])
  score = evaluate.evaluate(NET, found, split, batch_size)
  assert score.loss == pytest.approx(loss, rel=1e-5)
  assert score.accuracy == np.mean(logits.argmax(1) == split.y)


def test_evaluate_has_the_loss_of_the_run() -> None:
  found, split = variables(NET), examples(23)
  logits = np.float64(jax.jit(Net(NET).apply)(found, split.x))
  target = 2 * np.eye(logits.shape[1])[split.y] - 1
  want = np.mean(np.maximum(0, 1 - target * logits) ** 2)
  score = evaluate.evaluate(NET, found, split, 7, loss='squared_hinge')
  assert score.loss == pytest.approx(want, rel=1e-5)


def test_calibration_needs_examples() -> None:
  message = 'probe: expected at least one example, got 0'
  with pytest.raises(ValueError, match=message):
    probe.probe(NET, variables(NET), examples(0))


def test_evaluate_applies_grids_and_masks() -> None:
  found, split = variables(DENSE), examples(50)
  kernel, bias = found['params']['d1']['kernel'], found['params']['d1']['bias']
  inputs = Inputs(jnp.float32(0), jnp.float32(0.77), 2)
  mask = np.arange(360).reshape(36, 10) % 3 > 0
  node = magnitude.Masked(FakeQuantized(kernel, inputs, 4), mask)
  found['params'] = {'d1': {'kernel': node, 'bias': bias}}
  step = np.abs(kernel).max(0) / 7
  x, gap = split.x.reshape(50, -1) / 255, 0.77 / 3
  x = np.clip(np.round(x / gap), 0, 3) * gap
  logits = x @ (np.round(kernel / step) * step * mask) + bias
  score = evaluate.evaluate(DENSE, found, split, 16)
  assert score.accuracy == np.mean(logits.argmax(1) == split.y)
  shifted = logits - logits.max(1, keepdims=True)
  log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
  loss = -log_p[np.arange(50), split.y].mean()
  assert score.loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_a_predictor_is_the_network_as_it_is_served() -> None:
  _, state = begin(DENSE, sgd(), 1, METHOD)
  found, split = {'params': state.params, 'batch_stats': {}}, examples(6)
  logits = np.asarray(jax.jit(evaluate.predictor(DENSE, found))(split.x))
  score = evaluate.evaluate(DENSE, found, split)
  assert score.accuracy == np.mean(logits.argmax(1) == split.y)
  plain = jax.jit(Net(DENSE).apply)(variables(DENSE), split.x)
  assert not np.array_equal(logits, plain)


def test_ranges_are_those_of_each_input() -> None:
  spec = sp.Spec(
    name='net',
    input_shape=(6, 6, 1),
    layers=(
      sp.Standardise(mean=(100.0,), std=(50.0,)),
      sp.Flatten(),
      sp.Dense(name='d1', features=5),
      sp.Act(fn='tanh'),
      sp.Dense(name='d2', features=3),
    ),
  )
  found, split = variables(spec), examples(30)
  split.x[:20] = np.clip(split.x[:20], 60, 180)
  requested = probe.probe(spec, found, split, examples=20)
  observed = requested.ranges(found['params'])
  x = (split.x[:20].reshape(20, -1) - 100.0) / 50
  first = found['params']['d1']
  y = np.tanh(x @ first['kernel'] + first['bias'])
  assert set(observed) == {'d1/kernel', 'd2/kernel'}
  for name, values in (('d1', x), ('d2', y)):
    np.testing.assert_allclose(
      observed[f'{name}/kernel'], [values.min(), values.max()], rtol=1e-5
    )


@functools.cache
def short_run(method: str) -> tuple[dict[str, np.ndarray], list[str]]:
  """Take five steps with dropout and norms, and log them."""
  plan, state = begin(NET, sgd(label_smoothing=0.1), 5, method)
  order = {'batch_size': 16, 'seed': 3, 'augment': ('flip', 'shift')}
  log = logging.handlers.BufferingHandler(10**6)
  logging.getLogger('jax').addHandler(log)
  with jax.log_compiles():
    state = step_lib.run_steps(plan, state, examples(40), 5, **order)
  logging.getLogger('jax').removeHandler(log)
  return arrays(state), [record.getMessage() for record in log.buffer]


@pytest.mark.slow
def test_a_run_traces_and_compiles_its_step_once() -> None:
  state, messages = short_run(METHOD)
  assert state['.step'] == 5
  for begun in ('Finished tracing', 'Finished XLA compilation'):
    said = [m for m in messages if m.startswith(begun) and '_step' in m]
    assert len(said) == 1, messages


@pytest.mark.slow
def test_many_devices_give_the_result_of_one(tmp_path: pathlib.Path) -> None:
  # Without a grid, which makes a step of the last bit of a sum.
  masks = METHOD.partition(' >> ')[0]
  run = f'short_run({masks!r})[0]'
  found = on_eight('tests.tsukiji.training.test_step', run, tmp_path / 'it.npz')
  expected, _ = short_run(masks)
  assert set(found) == set(expected)
  for name, x in expected.items():
    close = {'rtol': 1e-4, 'atol': 1e-5} if x.dtype == np.float32 else {}
    np.testing.assert_allclose(found[name], x, err_msg=name, **close)
