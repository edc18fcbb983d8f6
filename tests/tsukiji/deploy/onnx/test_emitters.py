"""ONNX of networks that nobody here wrote, in ONNX Runtime."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

import compress
from compress import tree
from tests import frameworks
from tests.tsukiji.graph.test_capture import FUNCTIONS, UNARY, X, lax, weights
from tsukiji.deploy.onnx import model as written
from tsukiji.graph.capture import capture

RECIPES = ('', 'quantize.int8()', 'binary.inputs(ends=False)')
# Two weights are at an end of these: `binary.inputs` finds no other.
SHORT = ('nn.scan', 'nn.vmap', 'shared layer')
CELLS = frameworks.slow_but_few(
  (name, text)
  for name in frameworks.MODELS
  for text in RECIPES
  if not (text.startswith('binary') and name in SHORT)
)


def session(made: Any) -> Any:
  """Return a model in ONNX Runtime."""
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3
  options.add_session_config_entry(*written.EXACT)
  return onnxruntime.InferenceSession(
    made.SerializeToString(), options, ['CPUExecutionProvider']
  )


def fed(made: Any, inputs: Any) -> Any:
  """Return the outputs of a model."""
  run = session(made)
  wide = [
    np.float32(x) if x.dtype == jnp.bfloat16 else np.asarray(x) for x in inputs
  ]
  names = (x.name for x in run.get_inputs())
  return run.run(None, dict(zip(names, wide, strict=True)))


def compressed(model: frameworks.Model, text: str) -> tuple[Any, Any]:
  """Return the graph of a network and its parameters, perhaps compressed."""
  params = model.params
  if text:
    probe = compress.probe(model.apply, params, model.inputs)
    method = compress.parse(text)
    params = compress.freeze(compress.init(method, params, probe, steps=0))
  return capture(model.apply, params, *model.inputs), params


@pytest.mark.parametrize(('name', 'text'), CELLS)
def test_networks_of_any_framework_run(name: str, text: str) -> None:
  """Grids and signs of inputs too, for any number of examples."""
  model = frameworks.MODELS[name]()
  graph, params = compressed(model, text)
  made = written.model(graph, {'params': tree.paths(params)}, least=math.inf)
  narrow = 'bfloat16' in name or name == 'mixed'
  for count in (1, frameworks.EXAMPLES):
    inputs = tuple(x[:count] for x in model.inputs)
    want = np.float32(compress.apply(model.apply, params, *inputs))
    (got,) = fed(made, inputs)
    assert got.shape == want.shape
    assert_near(got, want, 2e-2 if narrow else 1e-5, text)


def assert_near(got: Any, want: Any, near: float, text: str) -> None:
  """Compare outputs; a few examples may be a code of some grid apart."""
  error = np.abs(got - want).reshape(len(want), -1).max(axis=1)
  if text.startswith('quantize') and len(want) > 1:
    assert np.median(error) <= near
    near = max(near, 0.01 * np.abs(want).max())
  assert error.max() <= near


# In their loops and behind their casts, kernels are of floats.
SERVED = {
  'Equinox conv': 3,
  'Equinox MLP': 3,
  'GRU': 1,
  'Linen CNN': 7,
  'NNX transformer': 3,
  'shared layer': 2,
}


@pytest.mark.parametrize('name', sorted(SERVED))
def test_networks_of_any_framework_run_in_integers(name: str) -> None:
  model, text = frameworks.MODELS[name](), 'quantize.int8()'
  graph, params = compressed(model, text)
  variables = {'params': tree.paths(params)}
  assert len(written.served(graph, variables, 0)) == SERVED[name]
  made = written.model(graph, variables, least=0)
  codes = [x for x in made.graph.initializer if x.data_type == TensorProto.INT8]
  assert len(codes) >= SERVED[name]
  want = compress.apply(model.apply, params, *model.inputs)
  (got,) = fed(made, model.inputs)
  assert_near(got, np.float32(want), 1e-5, text)


def ops(made: Any) -> list[str]:
  """Return the operators of a model."""
  return [node.op_type for node in made.graph.node]


def test_layouts_of_any_framework_move_nothing() -> None:
  """Only inputs are transposed, and kernels beforehand."""

  def apply(params: Any, x: jax.Array) -> jax.Array:
    y = lax.conv_general_dilated(
      x.transpose(0, 2, 1), params['w'], (1,), 'SAME'
    )  # as PyTorch writes it
    y = jax.nn.relu(y * params['b'][:, None]) + x.transpose(0, 2, 1)[:, :1]
    y = jnp.concatenate([y, y[:, 1:]], axis=1).transpose(0, 2, 1)
    return y.reshape(len(x), -1) @ params['m']

  rng = np.random.default_rng(0)
  shapes = {'w': (4, X.shape[2], 3), 'b': (4,), 'm': (7 * X.shape[1], 2)}
  params = {k: np.float32(rng.normal(size=s)) for k, s in shapes.items()}
  made = written.model(capture(apply, params, X), {'params': params})
  assert ops(made).count('Transpose') == 1
  for count in (1, 4):
    want = apply(params, X[:count])
    np.testing.assert_allclose(fed(made, (X[:count],))[0], want, 1e-4, 1e-4)


def test_what_differs_between_examples_is_no_bias() -> None:
  def apply(params: Any, x: jax.Array) -> jax.Array:
    y = FUNCTIONS['conv 1d'](params, x)
    return y + x.mean(1)[:, None, :4]

  params = weights()
  made = written.model(capture(apply, params, X), {'params': params})
  for count in (1, 4):
    want = apply(params, X[:count])
    np.testing.assert_allclose(fed(made, (X[:count],))[0], want, atol=1e-5)


# Constants that have more entries than what they meet, and other products than
# of rows with a matrix.
WIDE = {
  'bias of a computed matrix': lambda p, x: (
    x[:, 0] @ (x[0, 0][:, None] * p['m']) + p['b']
  ),
  'bias of columns': lambda p, x: x[0].T @ p['m'][:5] + p['b'],
  'bias of vectors': lambda p, x: x[:, :, :3] @ p['b'] + jnp.arange(5.0),
  'divisor': lambda p, x: x[:, :1] / jnp.full((2, 1), 4.0),
  'mean': lambda p, x: x.mean(1, keepdims=True) * jnp.full((2, 6), 4.0),
  'relu': lambda p, x: jnp.maximum(x[:, :1], jnp.zeros((3, 6))),
  'slopes': lambda p, x: jnp.where(
    x[..., :1] >= 0, x[..., :1], p['b'] * x[..., :1]
  ),
  'relu6': lambda p, x: jax.nn.relu6(9 * x),
}


@pytest.mark.parametrize('name', sorted(WIDE))
def test_what_is_wider_or_computed_is_not_joined(name: str) -> None:
  rng = np.random.default_rng(0)
  params = {
    'm': np.float32(rng.normal(size=(6, 3))),
    'b': np.float32([1, 2, 3]),
  }
  made = written.model(capture(WIDE[name], params, X), {'params': params})
  for count in (1, 4):
    want = WIDE[name](params, X[:count])
    np.testing.assert_allclose(fed(made, (X[:count],))[0], want, 1e-5, 1e-5)


MISSING = {'bits', 'cumsum'}  # ONNX has no casts of bits or products so far


@pytest.mark.parametrize('name', sorted(FUNCTIONS.keys() - MISSING))
def test_operators_run(name: str) -> None:
  params, fn = weights(), FUNCTIONS[name]
  made = written.model(capture(fn, params, X), {'params': params})
  for count in (1, 4):
    want = jax.tree.leaves(fn(params, X[:count]))
    for a, b in zip(fed(made, (X[:count],)), want, strict=True):
      assert (a.shape, a.dtype) == (b.shape, b.dtype)
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', sorted(UNARY))
def test_functions_of_one_number_run(name: str) -> None:
  fn, x = getattr(lax, name), jnp.abs(X) + 0.1
  made = written.model(capture(lambda p, x: fn(x), {}, x), {'params': {}})
  np.testing.assert_allclose(fed(made, (x,))[0], fn(x), rtol=1e-5, atol=1e-6)


def spread(stride: int, side: int, padding: Any) -> Any:
  """Return a transposed convolution as JAX writes it."""
  kernel = np.float32(np.random.default_rng(0).normal(size=(side, 6, 4)))
  return lambda p, x: lax.conv_general_dilated(
    x, kernel, (1,), [padding], (stride,), (1,), ('NWC', 'WIO', 'NWC')
  )


@pytest.mark.parametrize(
  ('stride', 'side', 'padding'),
  [(2, 2, (1, 1)), (2, 3, (2, 1)), (3, 3, (1, 3)), (2, 4, (2, 2))],
)
def test_transposed_convolutions_run(
  stride: int, side: int, padding: Any
) -> None:
  fn = spread(stride, side, padding)
  made = written.model(capture(fn, {}, X), {'params': {}})
  np.testing.assert_allclose(fed(made, (X,))[0], fn({}, X), atol=1e-5)


@pytest.mark.parametrize(
  ('fn', 'message'),
  [
    (spread(2, 2, (3, 1)), r'got conv \(spread \(2,\)'),
    (FUNCTIONS['bits'], 'got bitcast'),
    (FUNCTIONS['cumsum'], 'got cumprod'),
    (lambda p, x: lax.pad(x, 0.0, [(0, 0, 0), (1, 0, 1), (0, 0, 0)]), 'pad'),
    (lambda p, x: ~(x.astype(int)), r'got not \(of int32'),
  ],
)
def test_what_onnx_cannot_express_is_named(fn: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    written.model(capture(fn, {}, X), {'params': {}})
