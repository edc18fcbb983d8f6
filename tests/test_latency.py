"""The protocol with a fake clock; no test here depends on real time."""

import io
import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsukiji import zoo
from tsukiji.deploy import artefact, pack
from tsukiji.measure import latency
from tsukiji.net import Net


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
  latency.sample(runs, repeats=4, warmup=0, clock=bench.clock)
  assert ''.join(bench.log) == 'aabbcc' + 'abccba' * 2


def test_samples_are_milliseconds_per_call():
  bench = Bench()
  runs = {'slow': bench.run('slow', 3_000_000), 'fast': bench.run('f', 70_000)}
  times = latency.sample(runs, repeats=7, warmup=2, clock=bench.clock)
  np.testing.assert_allclose(times['slow'], [3.0] * 7)
  np.testing.assert_allclose(times['fast'], [0.07] * 7)
  # 2 to warm up, 2 to find the loop, then 7 samples of 3 x 70 us.
  assert bench.log.count('f') == 2 + 2 + 7 * 3


def test_a_hiccup_while_warming_does_not_shorten_samples():
  bench = Bench()
  run = bench.run('f', 9_000_000, 50_000)
  latency.sample({'f': run}, repeats=1, warmup=0, clock=bench.clock)
  assert len(bench.log) == 2 + 4


def test_the_budget_stops_early_but_not_before_five_rounds():
  for seconds, rounds in ((0.0, 5), (0.01, 10), (1.0, 50)):
    bench = Bench()
    runs = {'a': bench.run('a', 1_000_000)}
    times = latency.sample(
      runs, repeats=50, warmup=0, seconds=seconds, clock=bench.clock
    )
    assert len(times['a']) == rounds


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_quartiles_are_those_of_numpy(times):
  got = latency.quartiles(np.array(times))
  want = {
    'p25': np.quantile(times, 0.25),
    'p50': np.median(times),
    'p75': np.quantile(times, 0.75),
    'n': len(times),
  }
  assert got == pytest.approx(want)


def test_compare_summarises():
  bench = Bench()
  runs = {'a': bench.run('a', 400_000), 'b': bench.run('b', 800_000)}
  got = latency.compare(runs, repeats=3, warmup=1, clock=bench.clock)
  assert got['a'] == {'p25': 0.4, 'p50': 0.4, 'p75': 0.4, 'n': 3}
  assert list(got) == ['a', 'b']


@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=30))
def test_a_drifting_machine_leaves_ratios_alone(drift):
  times = np.array(drift)
  got = latency.ratios({'dense': 3 * times, 'small': times}, 'dense')
  assert got == {'dense': 1.0, 'small': pytest.approx(3.0)}


def test_mistakes_are_named():
  with pytest.raises(ValueError, match='reference of a, b, got'):
    latency.ratios({'a': np.ones(1), 'b': np.ones(1)}, 'c')
  with pytest.raises(ValueError, match='at least 1 repeat'):
    latency.sample({'a': lambda: None}, repeats=0)
  with pytest.raises(ValueError, match='expected variants'):
    latency.sample({})


def test_weights_become_constants():
  w = jnp.arange(12.0).reshape(3, 4)
  compiled = latency.compile_ahead(lambda x: x @ w, (2, 3))
  x = jnp.ones((2, 3))
  np.testing.assert_allclose(compiled(x), x @ w)
  assert len(jax.tree.leaves(compiled.in_avals)) == 1


def test_pin_refuses_a_core_that_is_not_there():
  latency.pin(None)
  assert latency.threads() >= 1
  if hasattr(os, 'sched_setaffinity'):
    with pytest.raises(ValueError, match='expected a core of'):
      latency.pin(10_000)


@pytest.fixture(scope='module')
def packed(tmp_path_factory) -> dict[str, str]:
  """Write two packed networks."""
  folder = tmp_path_factory.mktemp('packed')
  for name, units in (('dense', 8), ('small', 2)):
    spec = zoo.tsukijinet((4, 4, 1), 3, conv=(2,), hidden=(units,), name=name)
    shapes = jax.eval_shape(
      Net(spec).init, jax.random.key(0), jnp.zeros((1, 4, 4, 1))
    )
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    artefact.save(folder / f'{name}.tsk', pack.pack(spec, variables))
  return {path.stem: str(path) for path in sorted(folder.iterdir())}


def test_measure_gives_rows_and_speedups(packed):
  got = latency.measure(
    packed, reference='dense', batches=(1, 2), repeats=2, seconds=1.0
  )
  assert set(got) == {'latency_ms', 'speedups', 'energy_uj'}
  row = got['latency_ms']['small']
  assert row['engine'].startswith('jax') and row['threads'] >= 1
  for batch in ('batch_1', 'batch_2'):
    assert set(row[batch]) == {'p25', 'p50', 'p75', 'n'}
    assert 0 < row[batch]['p25'] <= row[batch]['p50'] <= row[batch]['p75']
  assert got['speedups']['dense'] == 1.0
  assert got['speedups']['small'] > 0


def test_speedups_are_of_batch_1(packed):
  got = latency.measure(packed, reference='dense', batches=(2,), repeats=1)
  assert got['speedups'] == {}
  assert set(got['latency_ms']['dense']) == {'engine', 'threads', 'batch_2'}


def test_a_job_goes_in_and_out_as_json(packed, monkeypatch, capsys):
  job = {'artefacts': packed, 'reference': 'small', 'batches': [1]}
  text = json.dumps(job | {'repeats': 2, 'core': None})
  monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
  assert latency.main() == 0
  got = json.loads(capsys.readouterr().out)
  assert list(got['speedups']) == ['dense', 'small']


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('[]', 'expected a job'),
    ('{"core": 1}', 'expected a job'),
    ('{"artefacts": {}, "colour": 1}', 'any of artefacts, batches, core'),
    ('{', 'Expecting'),
    ('{"artefacts": {"a": "missing.tsk"}}', 'expected a file'),
    ('{"artefacts": {"a": "a"}, "reference": "b"}', 'reference of a, got'),
  ],
)
def test_a_bad_job_is_one_line_and_exit_2(monkeypatch, capsys, text, message):
  monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
  assert latency.main() == 2
  line = capsys.readouterr().err
  assert message in line and line.count('\n') == 1


def test_a_fresh_process_runs_on_one_core(packed):
  allowed = getattr(os, 'sched_getaffinity', lambda _: {0})(0)
  job = {'artefacts': packed, 'reference': 'dense', 'batches': (1,)}
  got = latency.run_pinned(job | {'repeats': 2, 'core': min(allowed)})
  assert got['latency_ms']['small']['batch_1']['n'] == 2
  assert got['speedups']['dense'] == 1.0
  if hasattr(os, 'sched_setaffinity'):
    assert got['latency_ms']['small']['threads'] == 1


def test_a_fresh_process_reports_mistakes():
  with pytest.raises(ValueError, match='any of artefacts'):
    latency.run_pinned({'artefacts': {}, 'colour': 'red'})
