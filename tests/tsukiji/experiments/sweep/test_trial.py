"""A trial: what is known before it, what it finds, where it goes on."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

import search
from search import space as spaces
from tests.tsukiji.experiments.test_rows import tiny
from tsukiji import interrupt
from tsukiji.config import search_space, settings
from tsukiji.experiments import cell, jobs, prepare, row, store
from tsukiji.experiments.sweep import trial
from tsukiji.measure import latency
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Spec
from tsukiji.training import loop, vmapped
from tsukiji.training.vmapped import Member

pytestmark = pytest.mark.slow  # its networks are trained


def searched() -> ConfigDict:
  """Return a search over a tiny network, all of it cheap."""
  config = tiny()
  config.task = 'search'
  config.train.lr = search.log(1e-3, 1e30)
  config.networks.net.sizes.hidden = search.integer(4, 32)
  config.search.update(trials=2, epochs=1, objectives=('val_accuracy', 'bytes'))
  config.search.limits.macs = 12_000
  return config


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> jobs.Experiment:
  return prepare.prepare(searched(), tmp_path_factory.mktemp('search'))


def at(made: jobs.Experiment, **values: Any) -> ConfigDict:
  """Return a suggestion."""
  space = spaces.of(made.config)
  config = spaces.to_config(space, np.full(len(space.names), 0.5))
  config.train.lr = values.get('lr', 2e-3)
  config.networks.net.sizes.hidden = values.get('hidden', 8)
  return config


def test_costs_are_known_before_and_those_of_the_row_after(
  made: jobs.Experiment,
) -> None:
  space = spaces.of(made.config)
  config = at(made)
  known = trial.known(made, config, settings.KNOWN)
  values = trial.run(made, space, config)
  assert 0 <= values.objectives[0] <= 1
  assert values.objectives[1] == known['bytes']
  full = search_space.with_defaults(space, config)
  winner = prepare.of(full, made.folder, made.data)
  store.claim(made.folder, full)
  cell.run_dense(winner, 'net', 0, loop.ignore)
  found = store.cell(made.folder, 'net-0-dense') or {}
  assert {name: found[name] for name in settings.KNOWN} == known
  # An epoch in a trial is an epoch in the experiment.
  assert found['val_accuracy'] == pytest.approx(1 - values.objectives[0])


def test_costs_known_before_training_hold_after_it(
  made: jobs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  costs = {'bytes': 1.0, 'energy_uj': 2.0}
  shipped = trial.Shipped(None, costs)  # type: ignore[arg-type]
  monkeypatch.setattr(trial, 'shipped', lambda *_: shipped)
  config = made.config.copy_and_resolve_references()
  config.search.objectives = ('val_accuracy', 'bytes', 'energy_uj')
  values = trial.run(made._replace(config=config), spaces.of(config), at(made))
  _, size, energy = values.objectives
  assert (size, energy) == (trial.known(made, at(made), ('bytes',))['bytes'], 2)


def test_a_latency_is_on_the_scale_of_the_reference(
  made: jobs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = made.config.copy_and_resolve_references()
  config.search.objectives = ('val_accuracy', 'latency_ms')
  one, spec = made._replace(config=config), made.specs['net']
  done = row.Trained(spec, net_lib.init_variables(spec, 0), 0.0)
  slow = iter([1.0, 5.0])

  def timed(job: dict[str, Any]) -> dict[str, Any]:
    names = job['artefacts']
    assert all(pathlib.Path(path).is_file() for path in names.values())
    base = 0.5 * next(slow)
    times = dict.fromkeys(names, {'batch_1': {'p50': base / 2}})
    times[job['reference']] = {'batch_1': {'p50': base}}
    return {'latency_ms': times, 'speedups': dict.fromkeys(names, 2.0)}

  monkeypatch.setattr(latency, 'run_pinned', timed)
  meta = row.meta_of(made.data, 'trial')
  for _ in range(2):  # on a machine that is five times as slow then
    assert trial.shipped(one, done, meta).costs['latency_ms'] == 0.25


def test_the_memory_of_a_device_is_an_objective(made: jobs.Experiment) -> None:
  config = made.config.copy_and_resolve_references()
  config.search.objectives = ('val_accuracy', 'flash', 'ram')
  one, spec = made._replace(config=config), made.specs['net']
  done = row.Trained(spec, net_lib.init_variables(spec, 0), 0.0)
  costs = trial.shipped(one, done, row.meta_of(made.data, 'trial')).costs
  assert costs['flash'] >= 4 * costs['params']
  assert costs['ram'] >= 4 * (np.prod(spec.input_shape) + 10)


def test_a_trial_goes_on_from_its_checkpoint_and_keeps_metrics(
  made: jobs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = at(made)
  space = spaces.of(made.config)
  first = trial.run(made, space, config)
  monkeypatch.setattr(loop, '_epoch', None)  # nothing is left to train
  assert trial.run(made, space, at(made)) == first
  (title,) = trial.shortened(made, config).specs
  course = loop.curves(made.folder / 'trials')[f'{title}-0-dense']
  assert [x['split'] for x in course] == ['train', 'validation']
  other = trial.shortened(made, at(made, hidden=9))
  assert {*other.specs} != {title}


def test_a_trial_rests_and_goes_on_as_if_it_had_not(
  tmp_path: pathlib.Path,
) -> None:
  config = searched()
  config.search.epochs = 3
  found = []
  for name, epochs in (('rests', (1, 3)), ('does_not', (3,))):
    made = prepare.prepare(config, tmp_path / name)
    for count in epochs:
      one = at(made)
      one.search.epochs = count
      values = trial.run(made, spaces.of(made.config), one)
    (title,) = trial.shortened(made, one).specs
    course = loop.curves(made.folder / 'trials')[f'{title}-0-dense']
    assert [x['epoch'] for x in course] == [1, 1, 2, 2, 3, 3]
    found.append((values, [(x['split'], x['loss']) for x in course]))
  assert found[0] == found[1]


def test_a_loss_that_is_nan_is_an_error(made: jobs.Experiment) -> None:
  with pytest.raises(FloatingPointError, match='at step'):
    trial.run(made, spaces.of(made.config), at(made, lr=1e30))


def test_a_stop_request_is_noticed_before_training(
  made: jobs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(interrupt, 'requested', lambda: 15)
  with pytest.raises(interrupt.Stopped):
    trial.run(made, spaces.of(made.config), at(made))


def test_a_group_finds_what_its_trials_would(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = searched()
  config.train.optimizer = 'sgd'  # Adam blows the rounding of zeros up
  config.networks.net.sizes.dropout = search.float(0.0, 0.5)
  made = prepare.prepare(config, tmp_path)
  space = spaces.of(made.config)
  alike = [at(made, lr=1e-2), at(made, lr=3e-2), at(made, lr=1e30)]
  alike[0].networks.net.sizes.dropout = 0.3
  given = [*alike, at(made, hidden=9)]
  wanted = [
    trial.run(made, space, config) for config in given if config.train.lr < 1
  ]
  calls = []

  def fit_all(spec: Spec, members: Sequence[Member], *args: Any) -> Any:
    calls.append(len(members))
    return vmapped.train_group(spec, members, *args)

  monkeypatch.setattr(vmapped, 'is_mapped', lambda spec: True)
  monkeypatch.setattr(vmapped, 'fit', fit_all)
  *first, broken, last = trial.run_group(made, space, given)
  assert calls == [3]
  assert np.isnan(broken.objectives).all()
  for found, want in zip((*first, last), wanted, strict=True):
    np.testing.assert_allclose(found.objectives, want.objectives, atol=0.02)


def test_a_group_that_is_no_faster_trains_in_turn(
  made: jobs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
  space = spaces.of(made.config)
  given = [at(made, lr=1e-3), at(made, lr=1e30)]
  wanted = trial.run(made, space, given[0])
  monkeypatch.setattr(vmapped, 'fit', None)
  found, broken = trial.run_group(made, space, given)
  assert found == wanted
  assert np.isnan(broken.objectives).all()


def test_only_what_costs_no_more_than_it_may_is_allowed(
  made: jobs.Experiment,
) -> None:
  space = spaces.of(made.config)
  macs = [trial.known(made, at(made, hidden=n), ('macs',)) for n in (4, 128)]
  assert macs[0]['macs'] <= 12_000 < macs[1]['macs']
  assert trial.is_allowed(made, space, at(made, hidden=4))
  assert not trial.is_allowed(made, space, at(made, hidden=128))
  impossible = at(made)
  impossible.networks.net.sizes.conv = (0,)
  assert not trial.is_allowed(made, space, impossible)


def test_a_search_in_which_nothing_is_allowed_does_not_start(
  tmp_path: pathlib.Path,
) -> None:
  config = searched()
  config.search.limits.macs = 10
  with pytest.raises(ValueError, match='expected an allowed config'):
    prepare.prepare(config, tmp_path)
