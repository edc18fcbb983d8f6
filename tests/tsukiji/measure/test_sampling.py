"""The protocol with a fake clock; no test here depends on real time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsukiji.measure import sampling


class Bench:
  """A clock that moves only when something runs, and a log of what ran."""

  def __init__(self):
    self.now, self.log = 0, []

  def clock(self):
    return self.now

  def run(self, name, *nanoseconds):
    """Return a callable that takes these times in turn, the last for ever."""
    times = list(nanoseconds)

    def call():
      self.log.append(name)
      self.now += times.pop(0) if len(times) > 1 else times[0]
      return jnp.zeros(())

    return call


def test_variants_take_turns_forth_and_back():
  bench = Bench()
  runs = {name: bench.run(name, 300_000) for name in 'abc'}
  sampling.sample(runs, repeats=4, warmup=0, clock=bench.clock)
  # Two samples to find the loop, then one a round, each after a warm call.
  assert ''.join(bench.log) == 'aaaabbbbcccc' + 'aabbccccbbaa' * 2


def test_samples_are_milliseconds_per_call():
  bench = Bench()
  runs = {'slow': bench.run('slow', 3_000_000), 'fast': bench.run('f', 70_000)}
  times = sampling.sample(runs, repeats=7, warmup=2, clock=bench.clock)
  np.testing.assert_allclose(times['slow'], [3.0] * 7)
  np.testing.assert_allclose(times['fast'], [0.07] * 7)
  # 2 to warm up, 2 to find the loop, then 7 samples of 3 x 70 us, each of
  # these 9 after a warm call.
  assert bench.log.count('f') == 2 + 2 * 2 + 7 * (1 + 3)


def test_a_hiccup_while_warming_does_not_shorten_samples():
  bench = Bench()
  run = bench.run('f', 50_000, 9_000_000, 50_000)
  sampling.sample({'f': run}, repeats=1, warmup=0, clock=bench.clock)
  assert len(bench.log) == 2 * 2 + 1 + 4


def test_a_sample_does_not_count_the_misses_of_its_first_call():
  bench = Bench()
  log: list[str] = []

  def call(name, cold, warm):
    def run():
      bench.now += warm if log[-1:] == [name] else cold
      log.append(name)
      return jnp.zeros(())

    return run

  runs = {
    name: call(name, cold, 100_000)
    for name, cold in (('small', 120_000), ('large', 700_000))
  }
  times = sampling.sample(runs, repeats=6, warmup=3, clock=bench.clock)
  np.testing.assert_allclose(times['small'], [0.1] * 6)
  np.testing.assert_allclose(times['large'], [0.1] * 6)


def test_the_budget_stops_early_but_not_before_five_rounds():
  for seconds, rounds in ((0.0, 5), (0.02, 10), (1.0, 50)):
    bench = Bench()
    runs = {'a': bench.run('a', 1_000_000)}
    times = sampling.sample(
      runs, repeats=50, warmup=0, seconds=seconds, clock=bench.clock
    )
    assert len(times['a']) == rounds


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_quartiles_are_those_of_numpy(times):
  got = sampling.quartiles(np.array(times))
  want = {
    'p25': np.quantile(times, 0.25),
    'p50': np.median(times),
    'p75': np.quantile(times, 0.75),
    'n': len(times),
  }
  assert got == pytest.approx(want)


def test_compare_summarizes():
  bench = Bench()
  runs = {'a': bench.run('a', 400_000), 'b': bench.run('b', 800_000)}
  got = sampling.compare(runs, repeats=3, warmup=1, clock=bench.clock)
  assert got['a'] == {'p25': 0.4, 'p50': 0.4, 'p75': 0.4, 'n': 3}
  assert list(got) == ['a', 'b']


@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=30))
def test_a_drifting_machine_does_not_change_ratios(drift):
  times = np.array(drift)
  got = sampling.ratios({'dense': 3 * times, 'small': times}, 'dense')
  assert got == {'dense': 1.0, 'small': pytest.approx(3.0)}


def test_mistakes_are_named():
  with pytest.raises(ValueError, match='reference of a, b, got'):
    sampling.ratios({'a': np.ones(1), 'b': np.ones(1)}, 'c')
  with pytest.raises(ValueError, match='at least 1 repeat'):
    sampling.sample({'a': lambda: None}, repeats=0)
  with pytest.raises(ValueError, match='expected variants'):
    sampling.sample({})


def test_weights_become_constants():
  w = jnp.arange(12.0).reshape(3, 4)
  compiled = sampling.compile_ahead(lambda x: x @ w, (2, 3))
  x = jnp.ones((2, 3))
  np.testing.assert_allclose(compiled(x), x @ w)
  assert len(jax.tree.leaves(compiled.in_avals)) == 1
