"""How parameters are used is read from the function, whatever its framework."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import compress
from compress import tree
from tests import frameworks


def used(fn: Any, shapes: dict[str, tuple[int, ...]], *inputs: Any) -> Any:
  """Return the sites of a function of a dictionary."""
  params = {path: jnp.ones(shape) for path, shape in shapes.items()}
  return compress.sites(fn, params, *inputs)


def test_layouts_become_inputs_and_outputs() -> None:
  x = jnp.ones((5, 2, 3))
  found = used(
    lambda p, x: (
      x @ p['io'],
      jnp.einsum('oi,bti->bto', p['oi'], x),
      jnp.einsum('bti,iho->btho', x, p['heads']),
      jnp.einsum('bti,tio->bto', x, p['each']),
    ),
    {'io': (3, 4), 'oi': (4, 3), 'heads': (3, 2, 4), 'each': (2, 3, 4)},
    x,
  )
  axes = {p: (s.inputs, s.outputs, s.stacked) for p, s in found.items()}
  assert axes == {
    'io': ((0,), (1,), ()),
    'oi': ((1,), (0,), ()),
    'heads': ((0,), (1, 2), ()),
    'each': ((1,), (2,), (0,)),
  }
  assert {p: s.shape for p, s in found.items()} == {
    'io': (3, 4),
    'oi': (3, 4),
    'heads': (3, 8),
    'each': (3, 8),
  }
  assert [s.uses for s in found.values()] == [2, 2, 2, 1]
  assert [s.groups for s in found.values()] == [1, 1, 1, 2]


@pytest.mark.parametrize(
  ('layer', 'shape', 'uses', 'groups'),
  [
    (nn.Conv(4, (3, 3)), (3, 3, 2, 4), 64, 1),
    (nn.Conv(4, (3, 3), padding=1), (3, 3, 2, 4), 64, 1),
    (nn.Conv(4, (3, 3), padding='VALID', strides=2), (3, 3, 2, 4), 9, 1),
    (nn.Conv(4, (3, 3), feature_group_count=2), (3, 3, 1, 4), 64, 2),
    (nn.Conv(4, (3, 3), kernel_dilation=2), (3, 3, 2, 4), 64, 1),
    (nn.ConvTranspose(4, (2, 2), (2, 2)), (2, 2, 2, 4), 64, 1),
    (nn.DenseGeneral((2, 3), (-2, -1)), (16, 6), 8, 1),
  ],
)
def test_multiplications_are_those_by_hand(
  layer: nn.Module, shape: Any, uses: int, groups: int
) -> None:
  x = jnp.ones((3, 8, 8, 2))
  params = layer.init(jax.random.key(0), x)['params']
  found = compress.sites(lambda p, x: layer.apply({'params': p}, x), params, x)[
    'kernel'
  ]
  assert (found.shape, found.uses, found.groups) == (shape, uses, groups)


def test_weights_behind_masks_and_norms_are_weights() -> None:
  """As of someone's own pruning, or weight normalization."""
  mask = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

  def fn(p: Any, x: jax.Array) -> Any:
    norm = jnp.sqrt(jnp.sum(p['normed'] ** 2, 0, keepdims=True))
    return x @ (p['masked'] * mask), x @ (p['gain'] * p['normed'] / norm)

  found = used(
    fn, {'masked': (3, 2), 'normed': (3, 2), 'gain': (2,)}, jnp.ones((4, 3))
  )
  kinds = {path: site.kind for path, site in found.items() if site.is_weight}
  assert kinds == {'masked': 'dot', 'normed': 'dot'}


def test_loops_multiply_uses_and_stack_layers() -> None:
  def fn(p: Any, x: jax.Array) -> Any:
    def step(h: jax.Array, w: jax.Array) -> Any:
      return jnp.tanh(h @ w @ p['shared']), None

    h, _ = jax.lax.scan(step, x, p['layers'])
    return h

  found = used(fn, {'layers': (5, 4, 4), 'shared': (4, 4)}, jnp.ones((2, 4)))
  assert found['layers'].stacked == (0,)
  assert found['layers'].shape == (4, 20)
  assert (found['layers'].uses, found['shared'].uses) == (1, 5)


def test_other_uses_are_no_weights() -> None:
  def fn(p: Any, ids: jax.Array) -> Any:
    x = p['table'][ids] + p['place']
    return x * p['scale'] + jnp.sum(p['both'] @ p['both'].T)

  shapes = {'table': (7, 4), 'place': (3, 4), 'scale': (4,), 'both': (4, 4)}
  found = used(fn, shapes, jnp.zeros((2, 3), int))
  kinds = {path: site.kind for path, site in found.items()}
  assert kinds['table'] == 'gather'
  assert kinds['place'] == kinds['scale'] == kinds['both'] == 'elementwise'
  weights = {path for path, site in found.items() if site.is_weight}
  assert weights == {'table'}


def test_what_cannot_be_followed_says_why() -> None:
  def fn(p: Any, x: jax.Array) -> Any:
    return x @ p['part'][:, :2], x @ p['split'].reshape(3, 4)

  found = used(fn, {'part': (3, 4), 'split': (2, 6)}, jnp.ones((2, 3)))
  assert (found['part'].shape, found['part'].unknown) == ((3, 4), '')
  assert found['split'].unknown == 'one axis holds both inputs and outputs'


def test_tied_weights_are_used_as_in_their_product() -> None:
  model = frameworks.MODELS['Linen transformer']()
  found = compress.sites(model.apply, model.params, *model.inputs)
  table = found['embed/embedding']
  assert (table.kind, table.inputs, table.outputs) == ('dot', (1,), (0,))
  assert found['place'].kind == 'elementwise'
  assert found['attention/query/bias'].kind == 'elementwise'


@pytest.mark.parametrize('name', frameworks.MODELS)
def test_every_parameter_of_every_framework_is_found(name: str) -> None:
  model = frameworks.MODELS[name]()
  found = compress.sites(model.apply, model.params, *model.inputs)
  shapes = {p: x.shape for p, x in tree.paths(model.params).items()}
  assert found.keys() == shapes.keys()
  for path, site in found.items():
    assert not site.unknown or 'up' in path, (path, site)
    if site.kind in ('conv', 'dot'):
      assert math.prod(site.shape) == math.prod(shapes[path])
      assert sorted(site.order) == [*range(len(shapes[path]))]
      assert site.uses >= 1
