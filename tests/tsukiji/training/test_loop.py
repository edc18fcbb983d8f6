"""Whole runs: stopped, killed and resumed to the same bits."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import devices
from tests.tsukiji.training import test_step as test_train
from tests.tsukiji.training.test_checkpoint import assert_same_bits
from tsukiji import interrupt
from tsukiji.config import settings as st_
from tsukiji.data.datasets import Data
from tsukiji.training import checkpoint
from tsukiji.training import evaluate as evaluate_lib
from tsukiji.training import step as step_lib
from tsukiji.training.evaluate import Score
from tsukiji.training.loop import Progress, Run, fit

EPOCH, STEPS = 5, 18  # the last epoch is cut short
DATA = Data(
  'drawn',
  test_train.examples(42, seed=1),
  test_train.examples(20, seed=2),
  test_train.examples(20, seed=3),
  tuple('0123456789'),
)


def make_run(spec: Any, chosen: ConfigDict, method: str = '') -> Run:
  plan, start = test_train.begin(spec, chosen, STEPS, method)
  return Run('net-0-x', plan, start, DATA, chosen, seed=4)


@functools.cache
def compressed() -> Run:
  """Return a run with norms, dropout, masks, grids and augmentation."""
  chosen = st_.training(batch_size=8, augment=('flip', 'shift'), warmup=0.2)
  return make_run(test_train.NET, chosen, test_train.METHOD)


def dense(**changes: Any) -> Run:
  """Return a run that compiles at once."""
  return make_run(test_train.DENSE, st_.training(batch_size=8, **changes))


@pytest.fixture(autouse=True, scope='module')
def compiled_once() -> Iterator[None]:
  """Keep the compiled step of a plan: every run here takes the same ones."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(step_lib, 'make_step', functools.cache(step_lib.make_step))
    yield


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(interrupt, '_sources', [])


class Bar:
  """Counts batches, and acts at one of them."""

  def __init__(self, at: int = -1, signum: int = signal.SIGTERM):
    self.count, self.at, self.signum = 0, at, signum

  def __call__(self, name: str, batches: int) -> None:
    assert name == 'net-0-x'
    self.count += batches

  def request(self) -> int | None:
    return self.signum if self.count == self.at else None


def restored(run: Run, workdir: pathlib.Path) -> Progress:
  """Return what the checkpoint holds, but for the time it took."""
  zero = np.float32(0)
  best = run.start.variables
  kept = best if run.settings.patience else {}
  like = Progress(run.start, kept, zero, np.int32(0), zero)
  found = checkpoint.restore(workdir / 'checkpoints' / run.name, like)
  assert found is not None
  return found.replace(seconds=zero)


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Return the metrics, but for the time they were written."""
  text = (workdir / 'metrics.jsonl').read_text()
  found = [json.loads(line) for line in text.splitlines()]
  return [{k: v for k, v in x.items() if k != 'time'} for x in found]


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The workdir of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole')
  fit(compressed(), workdir)
  return workdir


def assert_same_end(workdir: pathlib.Path, whole: pathlib.Path) -> None:
  run = compressed()
  assert_same_bits(restored(run, workdir), restored(run, whole))
  assert lines(workdir) == lines(whole)


@pytest.mark.slow
def test_a_run_ends_and_does_not_begin_again(
  whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  run, before = compressed(), lines(whole)
  assert int(run.start.step) == 0  # the start is left alone
  bar = Bar()
  found, seconds = fit(run, whole, bar)
  assert (bar.count, lines(whole)) == (STEPS, before)
  state = restored(run, whole).state
  assert int(state.step) == STEPS
  assert_same_bits(found['params'], state.params)
  assert_same_bits(found['batch_stats'], state.batch_stats)
  assert seconds > 0


def test_stopped_and_resumed_to_the_same_bits(
  whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  run, reported = compressed(), 0
  for at in (3, 5, 9):  # twice within an epoch, once at its end
    bar = Bar(at, signal.SIGINT)
    interrupt._sources[:] = [bar.request]
    with pytest.raises(interrupt.Stopped) as stopped:
      fit(run, tmp_path, bar)
    assert stopped.value.signum == signal.SIGINT
    reported = int(restored(run, tmp_path).state.step)
    assert reported == at
  interrupt._sources.clear()
  bar = Bar()
  fit(run, tmp_path, bar)
  assert bar.count == STEPS
  assert_same_end(tmp_path, whole)


def run_and_die(workdir: str, at: int) -> None:
  """Train until a batch, then end like a machine that loses power."""
  bar = Bar()

  def on_progress(name: str, batches: int) -> None:
    bar(name, batches)
    if bar.count == at:
      os.kill(os.getpid(), signal.SIGKILL)

  fit(compressed(), pathlib.Path(workdir), on_progress)


def test_killed_and_resumed_to_the_same_bits(
  whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  code = (
    'from tests.tsukiji.training import test_loop as t;'
    f't.run_and_die({str(tmp_path)!r}, 8)'
  )
  died = subprocess.run([sys.executable, '-c', code], cwd=devices.ROOT)
  assert died.returncode == -signal.SIGKILL
  assert int(restored(compressed(), tmp_path).state.step) == EPOCH
  fit(compressed(), tmp_path)
  assert_same_end(tmp_path, whole)


def test_metrics_are_one_line_an_epoch_and_split(whole: pathlib.Path) -> None:
  text = (whole / 'metrics.jsonl').read_text()
  found = [json.loads(line) for line in text.splitlines()]
  keys = ['time', 'run', 'step', 'epoch', 'split', 'loss', 'accuracy']
  assert all(list(entry) == keys for entry in found)
  times = [entry['time'] for entry in found]
  assert times == sorted(times) and times[0] > 1.6e9
  assert [(x['step'], x['epoch'], x['split']) for x in found] == [
    (step, epoch, split)
    for step, epoch in ((5, 1), (10, 2), (15, 3), (18, 4))
    for split in ('train', 'validation')
  ]
  last = restored(compressed(), whole).state
  variables = last.variables
  score = evaluate_lib.evaluate(test_train.NET, variables, DATA.validation)
  assert Score(found[-1]['loss'], found[-1]['accuracy']) == score


@pytest.mark.slow
def test_validation_has_the_loss_that_is_trained(
  tmp_path: pathlib.Path,
) -> None:
  run = dense(loss='squared_hinge')
  fit(run._replace(plan=run.plan._replace(loss='squared_hinge')), tmp_path)
  state = restored(run, tmp_path).state
  variables = state.variables
  validation = DATA.validation
  want = evaluate_lib.evaluate(
    test_train.DENSE, variables, validation, loss='squared_hinge'
  )
  other = evaluate_lib.evaluate(test_train.DENSE, variables, validation)
  assert lines(tmp_path)[-1]['loss'] == want.loss != other.loss


@pytest.mark.slow
def test_train_metrics_are_means_over_the_epoch(tmp_path: pathlib.Path) -> None:
  run = dense()
  fit(run, tmp_path)
  _, start = test_train.begin(test_train.DENSE, run.settings, STEPS)
  order = {'batch_size': 8, 'seed': 4}
  state, found = start, []
  for first, last in ((0, 5), (5, 10), (10, 15), (15, 18)):
    state = state.replace(sums=np.zeros(2, np.float32))
    state = step_lib.run_steps(
      run.plan, state, DATA.train, last - first, **order
    )
    found.append(np.asarray(state.sums) / (last - first))
  reported = [x for x in lines(tmp_path) if x['split'] == 'train']
  np.testing.assert_array_equal(
    [[x['loss'], x['accuracy']] for x in reported], np.float64(found)
  )


def scripted(
  monkeypatch: pytest.MonkeyPatch, accuracies: list[float]
) -> list[dict[str, Any]]:
  """Script what validation finds; return the variables it was shown."""
  shown: list[dict[str, Any]] = []

  def evaluate(
    spec: Any, variables: dict[str, Any], split: Any, loss: str
  ) -> Score:
    assert (split is DATA.validation, loss) == (True, 'cross_entropy')
    shown.append(jax.tree.map(np.array, variables))
    return Score(1.0, accuracies[len(shown) - 1])

  monkeypatch.setattr(evaluate_lib, 'evaluate', evaluate)
  return shown


@pytest.mark.parametrize(
  ('patience', 'accuracies', 'best', 'epochs'),
  [
    (1, [0.5, 0.4, 0.9, 0.9], 0, 2),
    (1, [0.5, 0.5, 0.9, 0.9], 0, 2),
    (2, [0.5, 0.4, 0.3, 0.9], 0, 3),
    (2, [0.5, 0.4, 0.9, 0.8], 2, 4),
    (5, [0.5, 0.9, 0.4, 0.3], 1, 4),
    (1, [-3.0, -2.0, -2.5, 0.9], 1, 3),  # R2 has no lower bound
    (1, [0.0, 0.0, 0.9, 0.9], 0, 2),
    (0, [0.9, 0.5, 0.4, 0.3], 3, 4),
  ],
)
def test_early_stopping_returns_the_best_epoch(
  monkeypatch: pytest.MonkeyPatch,
  tmp_path: pathlib.Path,
  patience: int,
  accuracies: list[float],
  best: int,
  epochs: int,
) -> None:
  shown = scripted(monkeypatch, accuracies)
  run = dense(patience=patience)
  found, _ = fit(run, tmp_path)
  assert len(shown) == epochs
  assert_same_bits(found, shown[best])
  again, _ = fit(run, tmp_path)
  assert len(shown) == epochs
  assert_same_bits(again, shown[best])


def test_waiting_goes_on_after_a_stop(
  monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
  shown = scripted(monkeypatch, [0.5, 0.4, 0.3, 0.9])
  run, bar = dense(patience=2), Bar(10)
  interrupt.watch(bar.request)
  with pytest.raises(interrupt.Stopped):
    fit(run, tmp_path, bar)
  interrupt._sources.clear()
  assert restored(run, tmp_path).waited == 1
  found, _ = fit(run, tmp_path)
  assert len(shown) == 3
  assert_same_bits(found, shown[0])


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(
  tmp_path: pathlib.Path,
) -> None:
  bar = Bar(EPOCH)
  interrupt.watch(bar.request)
  with pytest.raises(interrupt.Stopped):
    fit(dense(), tmp_path, bar)
  interrupt._sources.clear()
  before = restored(dense(), tmp_path)
  wild = dense(lr=1e38, schedule='constant')
  with pytest.raises(FloatingPointError, match=r'net-0-x: .* at step 6\. .*ch'):
    fit(wild, tmp_path)
  assert_same_bits(restored(wild, tmp_path), before)
  assert len(lines(tmp_path)) == 2


def test_weights_that_explode_in_the_last_step_are_noticed(
  tmp_path: pathlib.Path,
) -> None:
  wild = dense(lr=1e38, schedule='constant')
  last = wild._replace(plan=wild.plan._replace(steps=1))
  with pytest.raises(FloatingPointError, match='at step 1'):
    fit(last, tmp_path)
  assert not (tmp_path / 'checkpoints').exists()


def test_another_network_is_refused(whole: pathlib.Path) -> None:
  with pytest.raises(ValueError, match='another network, method or optimizer'):
    fit(dense(), whole)
