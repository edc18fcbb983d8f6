"""The model against arithmetic done by hand, the counters against fakes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.integer_codes import Inputs, Quantized
from tsukiji.deploy.passes.lower import captured
from tsukiji.measure import energy
from tsukiji.models import spec as sp

TINY = sp.Spec(
  name='tiny',
  input_shape=(6, 6, 2),
  layers=(
    sp.Conv(name='conv', features=4, kernel=(3, 3)),
    sp.Act(),
    sp.Flatten(),
    sp.Dense(name='fc', features=3),
  ),
)
MACS = {'conv': 4 * 4 * 3 * 3 * 2 * 4, 'fc': 64 * 3}


def parameters(bits: int | None = None, inputs: int | None = None) -> dict:
  """Return parameters of the tiny network, on grids if widths are given."""
  met = Inputs(jnp.zeros(()), jnp.ones(()), inputs) if inputs else None

  def weight(*shape):
    if bits is None:
      return jnp.ones(shape)
    codes = jnp.ones(shape, jnp.int8)
    return Quantized(codes, jnp.ones(shape[-1:]), met, bits)

  return {
    'conv': {'kernel': weight(3, 3, 2, 4), 'bias': jnp.zeros(4)},
    'fc': {'kernel': weight(64, 3), 'bias': jnp.zeros(3)},
  }


def model(
  params: dict,
  stored_bytes: int,
  table: energy.Table = energy.HOROWITZ45,
  spec: sp.Spec = TINY,
) -> energy.Energy:
  graph, weights = captured(spec, {'params': params})
  return energy.model(graph, weights, stored_bytes, table)


def test_float32_by_hand():
  got = model(parameters(), stored_bytes=1084)
  assert got.compute == pytest.approx(sum(MACS.values()) * (3.7 + 0.9) * 1e-6)
  assert got.weights == pytest.approx(1084 / 8 * 1300 * 1e-6)
  # 72 -> 64 and 64 -> 3 numbers of 4 bytes, all below 8 KB: 10 pJ a word.
  moved = (72 + 64 + 64 + 3) * 4 / 8 * 10 * 1e-6
  assert got.activations == pytest.approx(moved)
  assert got.total == got.compute + got.weights + got.activations
  assert got.source == 'model:horowitz45'


def test_int8_by_hand():
  got = model(parameters(8, 8), stored_bytes=271)
  assert got.compute == pytest.approx(sum(MACS.values()) * (0.2 + 0.1) * 1e-6)
  moved = (72 + 64 + 64 + 3) / 8 * 10 * 1e-6
  assert got.activations == pytest.approx(moved)


@pytest.mark.parametrize(
  ('bits', 'inputs', 'each'),
  [
    (4, 8, 0.2 + 0.1),
    (8, 12, 3.1 + 0.1),  # there is no 16-bit multiplier: the 32-bit row
    (16, 16, 3.1 + 0.1),
    (8, None, 3.7 + 0.9),  # integers that meet floats are multiplied as such
  ],
)
def test_widths_use_the_next_wider_row(bits, inputs, each):
  got = model(parameters(bits, inputs), stored_bytes=0)
  assert got.compute == pytest.approx(sum(MACS.values()) * each * 1e-6)


def test_layers_add_up():
  got = model(parameters(), stored_bytes=100)
  assert list(got.per_layer) == ['conv', 'fc']
  compute, moved = map(sum, zip(*got.per_layer.values(), strict=True))
  assert (compute, moved) == pytest.approx((got.compute, got.activations))


@pytest.mark.parametrize(
  ('side', 'price'), [(90, 10.0), (91, 20.0), (1024, 100.0), (1025, 1300.0)]
)
def test_the_smallest_memory_that_holds_it(side, price):
  """At 8 bits, one channel: side x side bytes, a 1x1 kernel keeps them."""
  spec = sp.Spec(
    name='one',
    input_shape=(side, side, 1),
    layers=(sp.Conv(name='conv', features=1, kernel=(1, 1), bias=False),),
  )
  met = Inputs(jnp.zeros(()), jnp.ones(()), 8)
  node = Quantized(jnp.ones((1, 1, 1, 1), jnp.int8), jnp.ones(1), met, 8)
  got = model({'conv': {'kernel': node}}, spec=spec, stored_bytes=0)
  assert got.activations == pytest.approx(2 * side**2 / 8 * price * 1e-6)


widths = st.integers(2, 16)


@given(st.tuples(widths, widths), st.tuples(widths, widths))
@settings(max_examples=30, deadline=None)
def test_fewer_bits_never_cost_more(a, b):
  low, high = (tuple(map(f, a, b)) for f in (min, max))
  small, large = (
    model(parameters(*bits), stored_bytes=64 * bits[0]) for bits in (low, high)
  )
  assert small.compute <= large.compute
  assert small.activations <= large.activations
  assert small.weights <= large.weights


def test_int8_costs_less_than_float32():
  dense = model(parameters(), stored_bytes=1084)
  small = model(parameters(8, 8), stored_bytes=271)
  for part in ('compute', 'weights', 'activations', 'total'):
    assert getattr(small, part) < getattr(dense, part)


def test_another_table_is_used_and_named():
  table = energy.HOROWITZ45._replace(name='bench', dram=0.0)
  got = model(parameters(), 1000, table)
  assert (got.weights, got.source) == (0.0, 'model:bench')


def test_negative_sizes_are_refused():
  with pytest.raises(ValueError, match='at least 0, got -1'):
    model(parameters(), stored_bytes=-1)


def zone(root, zone_name, name, now, span=1000):
  """Write one zone of a powercap tree."""
  path = root / zone_name
  path.mkdir()
  (path / 'name').write_text(f'{name}\n')
  (path / 'energy_uj').write_text(f'{now}\n')
  (path / 'max_energy_range_uj').write_text(f'{span}\n')
  return path


def test_no_counters_no_reader(tmp_path):
  assert energy.rapl(tmp_path) is None
  assert energy.rapl(tmp_path / 'nowhere') is None
  assert energy.measure(lambda: None, 1.0, None) is None


def test_packages_and_memory_are_summed_once(tmp_path):
  package = zone(tmp_path, 'intel-rapl:0', 'package-0', 10)
  zone(tmp_path, 'intel-rapl:0:0', 'core', 20)
  zone(tmp_path, 'intel-rapl:0:1', 'dram', 30)
  zone(tmp_path, 'intel-rapl:1', 'psys', 40)
  zone(tmp_path, 'intel-rapl-mmio:0', 'package-0', 50)
  broken = zone(tmp_path, 'intel-rapl:2', 'package-1', 60)
  (broken / 'energy_uj').unlink()
  reader = energy.rapl(tmp_path)
  assert reader.read() == (10, 30)
  (package / 'energy_uj').write_text('15')
  assert reader.spent((10, 30), reader.read()) == 5


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_wrap_is_counted(before, spent):
  domain = energy.Domain(None, 1000)
  after = (before + spent) % 1000
  assert energy.Reader((domain,)).spent((before,), (after,)) == spent


class Machine:
  """A machine with a counter that wraps: idle 5 W, busy 5 W and 40 uJ a call.

  A call takes 1/64 s, so that sums are exact.
  """

  def __init__(self, counter, call=40):
    self.counter, self.call = counter, call
    self.now, self.spent = 0.0, 99e6

  def wait(self, seconds, extra=0.0):
    self.now += seconds
    self.spent += 5e6 * seconds + extra
    self.counter.write_text(str(round(self.spent) % 100_000_000))

  def run(self):
    self.wait(1 / 64, self.call)
    return np.zeros(1)


@pytest.mark.parametrize(('call', 'expected'), [(40, 40.0), (0, None)])
def test_idle_power_is_subtracted(tmp_path, call, expected):
  path = zone(
    tmp_path, 'intel-rapl:0', 'package-0', 99_000_000, span=100_000_000
  )
  machine = Machine(path / 'energy_uj', call)
  got = energy.measure(
    machine.run,
    1.0,
    energy.rapl(tmp_path),
    clock=lambda: machine.now,
    sleep=machine.wait,
  )
  assert got == (expected and pytest.approx(expected, rel=1e-3))
  assert machine.now == pytest.approx(2.0, abs=0.02)


def test_the_table_is_the_published_one():
  table = energy.HOROWITZ45
  assert table.add['fp32'] + table.multiply['fp32'] == pytest.approx(4.6)
  prices = [price for _, price in table.sram] + [table.dram]
  assert all(a < b for a, b in itertools.pairwise(prices))
