"""Packed networks timed alternately, here and in another process."""

import contextlib
import io
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from tests.tsukiji.deploy.tsk.test_pack import Guest
from tsukiji import deploy, interrupt
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import node_forms, pack
from tsukiji.measure import latency
from tsukiji.models import zoo
from tsukiji.models.net import Net


def test_pin_refuses_a_core_that_is_not_there():
  latency.pin(None)
  assert latency.cores()
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
    artefact.save(folder / f'{name}.tsk', pack.pack(*lower(spec, variables)))
  return {path.stem: str(path) for path in sorted(folder.iterdir())}


def test_measure_gives_rows_and_speedups(packed):
  got = latency.measure(
    packed, reference='dense', batches=(1, 2), repeats=2, seconds=1.0
  )
  assert set(got) == {
    *('latency_ms', 'speedups', 'batch_speedups', 'energy_uj')
  }
  row = got['latency_ms']['small']
  assert row['engine'].startswith('jax') and row['threads'] >= 1
  for batch in ('batch_1', 'batch_2'):
    assert set(row[batch]) == {'p25', 'p50', 'p75', 'n'}
    assert 0 < row[batch]['p25'] <= row[batch]['p50'] <= row[batch]['p75']
  assert got['speedups']['dense'] == 1.0
  assert got['speedups']['small'] > 0


def test_a_rate_that_cannot_differ_from_1_is_left_out(packed):
  twin = {**packed, 'masked': packed['dense']}
  got = latency.measure(
    twin, reference='dense', batches=(1, 2), repeats=1, seconds=1.0
  )
  assert set(got['speedups']) == {'dense', 'small'}
  assert set(got['batch_speedups']) == {'dense', 'small'}
  assert got['latency_ms']['masked']['batch_1']['p50'] > 0


def test_no_setting_of_the_allocator_reaches_a_measurement(monkeypatch):
  monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '1')
  monkeypatch.setenv('MALLOC_MMAP_MAX_', '0')
  monkeypatch.setenv('TSUKIJI_TEST', 'kept')
  sent = {}

  class Process(contextlib.AbstractContextManager):
    returncode = None

    def __init__(self, *_, env, **__):
      sent.update(env)

    def __exit__(self, *_):
      pass

    def communicate(self, *_, **__):
      self.returncode = 0
      return '{}', ''

  monkeypatch.setattr(subprocess, 'Popen', Process)
  assert latency.run_pinned({'artefacts': {}}) == {}
  assert sent['TSUKIJI_TEST'] == 'kept' and sent['PATH'] == os.environ['PATH']
  assert not [name for name in sent if name.startswith('MALLOC')]


def test_latencies_of_two_moments_are_on_one_scale(tmp_path, monkeypatch):
  """A machine three times as slow the second time, a network twice as fast."""
  slow = iter([1.0, 3.0])
  jobs = []

  def run(job):
    jobs.append(job)
    base = 0.5 * next(slow)
    times = {'network': base / 2, 'reference': base}
    return {
      'latency_ms': {k: {'batch_1': {'p50': t}} for k, t in times.items()},
      'speedups': {'network': 2.0, 'reference': 1.0},
    }

  monkeypatch.setattr(latency, 'run_pinned', run)
  paths = (tmp_path / 'net.tsk', tmp_path / 'reference.tsk')
  assert latency.milliseconds(*paths, core=1) == 0.25
  assert latency.milliseconds(*paths, core=1) == 0.25
  assert jobs[0] == {
    'artefacts': {
      k: str(p) for k, p in zip(('network', 'reference'), paths, strict=True)
    },
    'reference': 'reference',
    'batches': [1],
    'core': 1,
  }


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
    (
      '{"artefacts": {}, "colour": 1}',
      'any of artefacts, batches, core, engines',
    ),
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


@pytest.mark.slow
def test_nodes_of_other_packages_are_timed(tmp_path):
  """They were trained and packed, and then the process knew no such class."""
  file = tmp_path / 'guest.tsk'
  weights = {'w': Guest(jnp.ones((4, 3)))}
  deploy.save(file, lambda p, x: x @ p['w'], weights, jnp.ones((1, 4)))
  assert 'tests.tsukiji.deploy.tsk.test_pack' in node_forms.modules()
  got = latency.run_pinned(
    {'artefacts': {'guest': str(file)}, 'batches': (1,), 'repeats': 2}
  )
  assert got['latency_ms']['guest']['batch_1']['n'] == 2


def test_a_fresh_process_reports_mistakes():
  with pytest.raises(ValueError, match='any of artefacts'):
    latency.run_pinned({'artefacts': {}, 'colour': 'red'})


def test_a_signal_ends_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(interrupt, 'requested', lambda: 15)
  with pytest.raises(interrupt.Stopped):
    latency.run_pinned({'artefacts': {}, 'core': None})
