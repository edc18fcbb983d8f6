"""Counts against arithmetic done by hand and against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import recipe, tree
from compress.method import Ctx
from compress.prune import magnitude
from compress.quantize.fake_quant import FakeQuantized
from tsukiji.deploy.passes.lower import captured
from tsukiji.measure import cost
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.net import Net

TINY = sp.Spec(
  name='tiny',
  input_shape=(6, 6, 2),
  layers=(
    sp.Conv(name='conv', features=4, kernel=(3, 3)),
    sp.Norm(name='norm'),
    sp.Act(),
    sp.Pool(),
    sp.Flatten(),
    sp.Dense(name='fc', features=3),
  ),
)


def start(spec: sp.Spec) -> dict:
  """Return variables of a network: weights that are not 0, the rest fresh."""
  images = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  shapes = jax.eval_shape(Net(spec).init, jax.random.key(0), images)
  generator = np.random.default_rng(0)

  def fill(path, x):
    fresh = np.full(x.shape, path[-1].key in ('scale', 'var'), x.dtype)
    drawn = generator.uniform(0.1, 1, x.shape).astype(x.dtype)
    return jnp.array(drawn if x.ndim >= 2 else fresh)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def everywhere(params: dict) -> Ctx:
  """Return a context with a range for every weight's input."""
  ranges = {path: jnp.array([0.0, 1.0]) for path in tree.paths(params)}
  return Ctx(key=jax.random.key(1), stats=ranges)


def compressed(spec: sp.Spec, text: str) -> dict:
  """Return fresh parameters after a recipe."""
  params = start(spec)['params']
  return recipe.parse(text).init(params, everywhere(params))


def layers(spec: sp.Spec, params: dict) -> tuple[cost.LayerCost, ...]:
  return cost.layers(*graph_of(spec, params))


def summary(spec: sp.Spec, params: dict, **more: int) -> dict[str, float]:
  return cost.summary(*graph_of(spec, params), **more)


def graph_of(spec: sp.Spec, params: dict) -> tuple:
  return captured(spec, {'batch_stats': {}, **start(spec), 'params': params})


def test_tsukijinet2021_has_the_known_size():
  spec = zoo.tsukijinet2021((28, 28, 1), 10)
  params = start(spec)['params']
  assert cost.macs(spec) == 4_002_304
  assert cost.params(params) == 317_258
  assert cost.sparsity(params) == 0
  by_name = {c.name: c.macs for c in layers(spec, params)}
  assert by_name == {
    'conv1': 24 * 24 * 5 * 5 * 32,
    'conv2': 8 * 8 * 5 * 5 * 32 * 64,
    'dense1': 4 * 4 * 64 * 256,
    'dense2': 256 * 10,
  }


@pytest.mark.parametrize(
  ('widths', 'expected'),
  [((16, 32, 32, 64), 6_435_712), ((8, 16, 16, 32), 1_637_312)],
)
def test_the_control_has_the_known_size(widths, expected):
  assert cost.macs(zoo.small((28, 28, 1), 10, widths=widths)) == expected


@pytest.mark.parametrize('name', sorted(zoo.NETWORKS))
def test_layers_add_up_to_the_network(name):
  spec = zoo.build(name, (28, 28, 1), 10)
  params = start(spec)['params']
  costs = layers(spec, params)
  assert sum(c.macs for c in costs) == cost.macs(spec) > 0
  assert len(costs) == sum(
    path.endswith('/kernel') for path in tree.paths(params)
  )
  assert all(c.nonzero == c.weights > 0 for c in costs)
  assert all(c.bops == c.macs * 32 * 32 for c in costs)


@pytest.mark.parametrize(
  ('layer', 'macs'),
  [
    (sp.Conv(name='c', features=6, kernel=(3, 2)), 6 * 7 * 3 * 2 * 4 * 6),
    (
      sp.Conv(name='c', features=6, kernel=(3, 3), groups=2),
      6 * 6 * 3 * 3 * 2 * 6,
    ),
    (
      sp.Conv(name='c', features=6, kernel=(3, 3), padding='SAME'),
      8 * 8 * 3 * 3 * 4 * 6,
    ),
    (
      sp.Conv(name='c', features=6, kernel=(3, 3), strides=(2, 3)),
      3 * 2 * 3 * 3 * 4 * 6,
    ),
    (sp.Norm(name='n'), 0),
    (sp.Pool(), 0),
  ],
)
def test_macs_of_one_layer(layer, macs):
  spec = sp.Spec(name='one', input_shape=(8, 8, 4), layers=(layer,))
  assert cost.macs(spec) == macs


def test_branches_count_every_path():
  conv = sp.Conv(name='a', features=4, kernel=(1, 1))
  other = sp.Conv(name='b', features=4, kernel=(1, 1))
  branch = sp.Branch(paths=((conv,), (other, sp.Act())))
  spec = sp.Spec(name='two', input_shape=(5, 5, 2), layers=(branch,))
  assert cost.macs(spec) == 2 * 5 * 5 * 2 * 4
  assert [c.name for c in layers(spec, start(spec)['params'])] == [
    'a',
    'b',
  ]


@pytest.mark.parametrize('spec', [TINY, zoo.tsukijinet((28, 28, 1), 10)])
def test_xla_counts_the_same_flop(spec):
  variables = start(spec)
  images = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  run = jax.jit(lambda v, x: Net(spec).apply(v, x))
  flops = run.lower(variables, images).compile().cost_analysis()['flops']
  # Bias, norm, activation and pool: at most 8 operations an output here.
  others = sum(8 * np.prod(step.after) for step in sp.walk(spec))
  assert 0 <= flops - 2 * cost.macs(spec) <= others


def test_grids_count_codes_scales_and_ranges():
  params = compressed(TINY, 'quantize.uniform(4, 8)')
  dense = cost.params(start(TINY)['params'])
  # A scale per output channel, and two ends of the range per weight.
  assert cost.params(params) == dense + 4 + 3 + 2 * 2
  conv, fc = layers(TINY, params)
  assert (conv.weight_bits, conv.activation_bits) == (4, 8)
  assert conv.bops == 4 * 4 * 3 * 3 * 2 * 4 * 4 * 8
  assert fc.bops == fc.macs * 4 * 8


def test_weight_grids_leave_activations_float():
  costs = layers(TINY, compressed(TINY, 'quantize.uniform(8)'))
  assert {(c.weight_bits, c.activation_bits) for c in costs} == {(8, 32)}


@given(share=st.floats(0, 0.95))
@settings(max_examples=10, deadline=None)
def test_zeros_are_counted_where_they_are(share):
  params = compressed(TINY, f'prune.weights({share})')
  costs = layers(TINY, params)
  zeros = [c.weights - c.nonzero for c in costs]
  assert zeros == [round(share * n) for n in (72, 48)]
  kept = sum(c.nonzero for c in costs)
  assert cost.sparsity(params) == pytest.approx(1 - kept / 120)
  # Biases (7) and norm shift (4) start at 0; the norm's scale (4) does not.
  assert cost.nonzero(params) == kept + 4
  assert cost.params(params) == 120 + 7 + 8


@struct.dataclass
class Halves(tree.Compressed):
  """A weight as the sum of two, which cannot take a mask into itself."""

  inner = ('u', 'v')
  u: jax.Array
  v: jax.Array

  def decode(self):
    return self.u + self.v


def test_masks_that_stay_are_not_numbers():
  mask = jnp.array([[True, False], [True, True]])
  node = magnitude.Masked(Halves(jnp.ones((2, 2)), jnp.ones((2, 2))), mask)
  params = {'fc': {'kernel': node}}
  assert cost.params(params) == 8
  assert cost.nonzero(params) == 8
  assert cost.sparsity(params) == 0.25


def test_the_widest_factor_decides():
  wide, narrow = (
    FakeQuantized(jnp.ones((16, 3)), None, bits) for bits in (8, 4)
  )
  params = start(TINY)['params']
  params['fc']['kernel'] = Halves(narrow, wide)
  _, fc = layers(TINY, params)
  assert (fc.weight_bits, fc.activation_bits) == (8, 32)


def test_summary_of_a_float_network():
  params = start(TINY)['params']
  row = summary(TINY, params, dense_macs=2 * cost.macs(TINY))
  macs = 4 * 4 * 3 * 3 * 2 * 4 + 16 * 3
  assert row == {
    'params': 135,
    'nonzero': 124,
    'macs': macs,
    'bops': macs * 32 * 32,
    'sparsity': 0,
    'mac_fraction': 0.5,
  }


def test_summary_of_grids_is_weighted_by_weights():
  same = summary(TINY, compressed(TINY, 'quantize.int8()'))
  assert (same['weight_bits'], same['activation_bits']) == (8, 8)
  text = 'only("conv/kernel", quantize.uniform(4))'
  mixed = summary(TINY, compressed(TINY, text))
  assert mixed['weight_bits'] == pytest.approx((72 * 4 + 48 * 32) / 120)
  assert 'activation_bits' not in mixed
