"""Evaluation and export of the artefacts of a finished experiment."""

from collections.abc import Callable

from tsukiji.deploy import artefact, engines
from tsukiji.deploy import export as formats
from tsukiji.deploy.c.footprint import Limits
from tsukiji.errors import expect
from tsukiji.experiments import store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row
from tsukiji.measure import on_device
from tsukiji.training import evaluate as evaluate_lib
from tsukiji.training import metrics

Log = Callable[[str], None]


def evaluate(experiment: Experiment, log: Log) -> None:
  """Load every artefact and compare its test accuracy with its row.

  Raises:
    ValueError: If the accuracy of one differs from that in results.json.
  """
  loss, others = experiment.config.train.loss, []
  for row in store.finished_rows(experiment.folder):
    shipped = artefact.load(experiment.folder / row['artefact'])
    found = evaluate_lib.scored(shipped.run, experiment.data.test, loss)
    same = found.accuracy == row.get(metrics.goal_of(loss).key)
    others += [] if same else [row['name']]
    said = 'as' if same else 'NOT as'
    log(f'{row["name"]}: {100 * found.accuracy:.2f} % {said} in results.json')
  what = f'artefacts as accurate as {experiment.folder}/results.json says'
  fix = 'Artefacts, data or rows were changed since.'
  expect('evaluate', not others, what, f'others: {", ".join(others)}', fix)


def export(experiment: Experiment, log: Log) -> None:
  """Write every artefact in the formats of the config, and log failures.

  Rows of C files are told what they take on a device.
  """
  rows = store.finished_rows(experiment.folder)
  done = [export_row(experiment, row, log) for row in rows]
  if done != rows:
    store.write_rows(experiment.folder, done)


def export_row(experiment: Experiment, row: Row, log: Log) -> Row:
  """Write the artefact of a row in the formats of the config."""
  asked = experiment.config.export
  limits = Limits(asked.flash, asked.ram)
  file = experiment.folder / row['artefact']
  done = formats.export(file, '', asked.formats, limits)
  for path in done.written.values():
    log(f'Wrote {path}, {path.stat().st_size} bytes')
  for reason in done.missing.values():
    log(f'{row["name"]}: {reason}')
  if 'c' not in done.written:
    return row
  source = engines.written(artefact.load(file))
  return {**row, 'device': on_device.record(source)}
