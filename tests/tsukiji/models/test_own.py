"""Networks from outside train, keep their statistics, and are checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runs import assert_same_bits
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net

SHAPE = (8, 8, 1)
NAMES = ('residual', 'transformer', 'recurrent', 'perceptron', 'linear')
X = jnp.float32(np.random.default_rng(0).normal(size=(6, *SHAPE)))


def built(name: str, **sizes: Any) -> sp.Spec:
  """Return a network of `tests.outside`."""
  return zoo.build(f'tests.outside:{name}', SHAPE, 3, name='mine', **sizes)


def trained(spec: sp.Spec, variables: Any, seed: int) -> Any:
  """Return the outputs and new statistics in training mode."""
  run: Any = Net(spec).apply
  return run(
    variables,
    X,
    train=True,
    mutable=['batch_stats'],
    rngs={'dropout': jax.random.key(seed)},
  )


@pytest.mark.parametrize('name', NAMES)
def test_networks_from_outside_are_layers(name: str) -> None:
  spec = built(name)
  assert (spec.name, sp.output_shape(spec)) == ('mine', (3,))
  assert sp.is_own(spec)
  variables = net_lib.init_variables(spec, 0)
  other = net_lib.init_variables(spec, 1)
  one, two = (jax.tree.leaves(v['params']) for v in (variables, other))
  drawn = zip(one, two, strict=True)
  assert any(np.any(a != b) for a, b in drawn)  # a seed draws its own
  assert_same_bits(variables, net_lib.init_variables(spec, 0))
  run: Any = Net(spec).apply
  y = run(variables, X)
  assert (y.shape, y.dtype) == ((6, 3), jnp.float32)
  np.testing.assert_allclose(run(variables, X[:2]), y[:2], atol=1e-6)


@pytest.mark.parametrize('name', ['residual', 'perceptron'])
def test_they_are_told_that_they_train(name: str) -> None:
  """Dropout draws, and statistics follow the batch."""
  spec = built(name)
  variables = net_lib.init_variables(spec, 0)
  (one, stats), (other, _) = (trained(spec, variables, i) for i in range(2))
  assert np.any(one != other)
  before, after = variables['batch_stats'], stats['batch_stats']
  assert jax.tree.structure(before) == jax.tree.structure(after)
  moved = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
  assert all(np.any(a != b) for a, b in moved)


@pytest.mark.parametrize('name', ['recurrent', 'linear'])
def test_those_without_modes_compute_the_same(name: str) -> None:
  spec = built(name)
  variables = net_lib.init_variables(spec, 0)
  run: Any = Net(spec).apply
  assert_same_bits(trained(spec, variables, 0)[0], run(variables, X))


def test_sizes_are_arguments() -> None:
  shapes = net_lib.variable_shapes(built('residual', width=4))['params']
  assert shapes['net']['stem']['kernel'].shape == (3, 3, 1, 4)


@pytest.mark.parametrize(
  ('name', 'sizes', 'message'),
  [
    ('wrong', {}, r'expected outputs \[batch, 3\], got \(1, 4\)'),
    ('missing', {}, 'expected a function that can be imported'),
    ('residual', {'height': 3}, r'arguments that it takes, got {"height": 3}'),
    ('jnp.zeros', {}, 'expected'),
  ],
)
def test_other_functions_are_errors(
  name: str, sizes: Any, message: str
) -> None:
  with pytest.raises(
    ValueError, match=f'network tests.outside:{name}.*{message}'
  ):
    built(name, **sizes)


def test_files_of_layers_have_no_code() -> None:
  with pytest.raises(ValueError, match='expected the JSON of a network'):
    sp.loads(sp.dumps(built('linear')))
