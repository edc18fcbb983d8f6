"""What `config.task` can be: each task takes a prepared experiment."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from tsukiji import report
from tsukiji.config import ranges, stages
from tsukiji.deploy import artefact
from tsukiji.experiments import experiment as ex
from tsukiji.experiments import findings, pool, store, tuning, winner
from tsukiji.experiments import prepare as prepare_lib
from tsukiji.experiments import publish as publishing
from tsukiji.experiments.experiment import Experiment
from tsukiji.experiments.store import Row
from tsukiji.measure import energy, latency
from tsukiji.report import trials as report_trials
from tsukiji.report.trials import Searched
from tsukiji.training import evaluate as evaluate_lib
from tsukiji.training import loop, metrics

SIZE = (
  'Compression rate: bytes of the float32 dense file over bytes of this file. '
  'Both are whole files that load by themselves.'
)
IN_JAX = (
  'Speed-up rate: wall clock of the float32 dense network over that of this '
  'file at batch 1, one thread, same engine (XLA, compiled ahead of time), '
  'measured alternately. Masks and grids run on dense float32 kernels here: '
  'they save bytes, not time.'
)
IN_ANY = (
  'Speed-up rate: wall clock of the float32 dense network over that of this '
  'file at batch 1, one thread, each in the engine that runs it fastest of '
  '{engines}, measured alternately. Masks run on dense kernels: they save '
  'bytes, not time.'
)
SCORE = 'Accuracy is that of the packed file, read from disk, on the test set.'


def prepare(config: ConfigDict, folder: pathlib.Path) -> Experiment:
  """Check a config and load what it needs; see `preparing.prepare`."""
  experiment = prepare_lib.prepare(config, folder)
  first = stages.of_networks(config)
  if ranges.varies(first):
    tuning.expect_allowed(experiment._replace(config=first))
  return experiment


def compress(experiment: Experiment, console: Console) -> None:
  """Train, compress, pack and measure whatever is not done yet, and report."""
  if store.rows(experiment.folder):
    console.print(f'{experiment.folder} is finished; nothing to do.')
  else:
    _make(experiment, console)
  show(experiment, console)


def search(experiment: Experiment, console: Console) -> None:
  """Search, then do with the best config what `compress` does.

  A search trains its networks and stops there; a study compresses them too, by
  recipes that it searches for once the network is found, where one varies.
  """
  folder = experiment.folder
  if store.rows(folder):
    console.print(f'{folder} is finished; nothing to do.')
  else:
    config, told = _searched(experiment, console)
    found, reasons = prepare_lib.fitting(experiment._replace(config=config))
    for reason in reasons:
      told.append(f'Left out: {reason}')
      console.print(told[-1], soft_wrap=True)
    winner.write(folder / 'best.py', found.config, told)
    _make(found, console)
  first = experiment._replace(config=stages.of_networks(experiment.config))
  if ranges.varies(first.config) and first.config.search.batch_size == 1:
    findings.tested(first)
  show(experiment, console)


def _searched(
  experiment: Experiment, console: Console
) -> tuple[ConfigDict, list[str]]:
  """Return a config in which nothing varies any more, and where it is from."""
  folder, data = experiment.folder, experiment.data
  chosen, told = stages.of_networks(experiment.config), []
  if ranges.varies(chosen):
    best = tuning.run(experiment._replace(config=chosen))
    chosen = best.config
    place = f'{best.study}, trial {best.number}, {100 * best.accuracy:.2f} %'
    told.append(f'Best on the validation set: {place}.')
    console.print(told[-1])
  name = stages.recipe_of(experiment.config)
  if name:
    dense = prepare_lib.of(stages.alone(chosen), folder, data)
    pool.run(dense)
    # Mixtures that this network does not allow are infeasible trials.
    mixed = stages.of_recipes(experiment.config, chosen)
    second = dense._replace(config=mixed)
    tuning.run(second)
    kept = findings.kept(second)
    chosen = stages.with_recipes(chosen, kept, name)
    told.append(f'Recipes {name}_1 to {name}_{len(kept)}: a Pareto set.')
    console.print(told[-1])
  return chosen, told


def _make(experiment: Experiment, console: Console) -> None:
  pool.run(experiment)
  rows = gather(experiment)
  console.print('Measuring latency, one thread ...')
  store.write_rows(experiment.folder, _timed(experiment, rows))


def bench(experiment: Experiment, console: Console) -> None:
  """Measure the latency of every artefact again."""
  rows = _need_rows(experiment)
  store.write_rows(experiment.folder, _timed(experiment, rows))
  show(experiment, console)


def evaluate(experiment: Experiment, console: Console) -> None:
  """Load every artefact and check its test accuracy against its row."""
  for row in _need_rows(experiment):
    shipped = artefact.load(experiment.folder / row['artefact'])
    loss = experiment.config.train.loss
    found = evaluate_lib.evaluate(
      shipped.spec, shipped.variables, experiment.data.test, loss=loss
    )
    told = row[metrics.goal_of(loss).key]
    same = 'as' if found.accuracy == told else 'NOT as'
    console.print(
      f'{row["name"]}: {100 * found.accuracy:.2f} % {same} in results.json'
    )


def export(experiment: Experiment, console: Console) -> None:
  """Write every artefact as ONNX and StableHLO too, and say what cannot be."""
  from tsukiji.deploy import export as formats

  for row in _need_rows(experiment):
    done = formats.export(experiment.folder / row['artefact'])
    for path in done.written.values():
      size = path.stat().st_size
      console.print(f'Wrote {path}, {size} bytes', soft_wrap=True)
    for reason in done.missing.values():
      console.print(f'{row["name"]}: {reason}', soft_wrap=True)


def show(experiment: Experiment, console: Console) -> None:
  """Print the table and write the report."""
  rows = _need_rows(experiment)
  summary = report.summarise(rows)
  searched = _told(experiment)
  title = experiment.config.title or 'Experiment'
  path = report.write(
    experiment.folder,
    [*rows, *summary],
    report.Extras(
      title,
      loop.curves(experiment.folder),
      _notes(experiment.config.measure.engines),
      experiment.config.figures,
      searched,
    ),
  )
  console.print(report.table(summary))
  for line in report.sentences(summary):
    console.print(f'- {line}', highlight=False)
  for line in report.removed(rows):
    console.print(f'- removed by {line}', highlight=False, soft_wrap=True)
  for one in searched:
    for line in report_trials.sentences(one):
      console.print(f'- {line}', highlight=False)
  console.print(f'Report: {path}', soft_wrap=True)


def _told(experiment: Experiment) -> list[Searched]:
  """Return what each stage of a search has found."""
  config = experiment.config
  first = stages.of_networks(config)
  configs = [first] if ranges.varies(first) else []
  if stages.recipe_of(config):
    configs.append(stages.of_recipes(config))
  return [findings.told(experiment._replace(config=x)) for x in configs]


def _notes(engines: Sequence[str]) -> tuple[str, ...]:
  """Say what the numbers of a report are."""
  alone = tuple(engines) == ('jax',)
  speed = IN_JAX if alone else IN_ANY.format(engines=', '.join(engines))
  return SIZE, speed, SCORE


def publish(experiment: Experiment, console: Console) -> None:
  """Write results/ and the README's table from a finished experiment."""
  rows, searched = _need_rows(experiment), _told(experiment)
  made = publishing.publish(experiment.folder, rows, searched=searched)
  console.print(f'Wrote {made}')


def _need_rows(experiment: Experiment) -> list[Row]:
  rows = store.rows(experiment.folder)
  if not rows:
    raise ValueError(
      f'workdir {experiment.folder}: expected a finished experiment, got no '
      'results.json. Run it with --config.task=compress first.'
    )
  return rows


def gather(experiment: Experiment) -> list[Row]:
  """Return the rows of all cells, with their rates against the reference."""
  config = experiment.config
  rows = []
  for network, seed in ex.jobs(config):
    for name in ex.cells(config, network, seed):
      row = _cell(experiment, network, seed, name)
      dense = _reference(experiment, network, seed)
      if dense:
        row['reference'] = dense['network']
        row['compression_rate'] = dense['bytes'] / row['bytes']
      rows.append(row)
  return rows


def _cell(experiment: Experiment, network: str, seed: int, name: str) -> Row:
  row = store.cell(experiment.folder, ex.cell_name(network, seed, name))
  if row is None:
    raise RuntimeError(f'{network}-{seed}-{name}: its cell was not written')
  return row


def _reference(experiment: Experiment, network: str, seed: int) -> Row | None:
  of = ex.reference_of(experiment.config, network)
  return store.cell(experiment.folder, ex.cell_name(of, seed, ex.DENSE))


def _timed(experiment: Experiment, rows: list[Row]) -> list[Row]:
  """Time the artefacts beside their references, in a fresh pinned process."""
  config = experiment.config
  groups: dict[tuple[str, int], list[Row]] = {}
  for row in rows:
    of = ex.reference_of(config, row['network'])
    groups.setdefault((of, row['seed']), []).append(row)
  for (of, seed), group in groups.items():
    found = latency.run_pinned(
      {
        'artefacts': {
          row['name']: str(experiment.folder / row['artefact']) for row in group
        },
        'reference': ex.cell_name(of, seed, ex.DENSE),
        'batches': list(config.measure.batches),
        'repeats': config.measure.repeats,
        'engines': list(config.measure.engines),
        'core': pool.cores()[-1],
      }
    )
    for row in group:
      row.update(_timing(found, row['name']))
  return rows


def _timing(found: dict[str, Any], name: str) -> dict[str, Any]:
  """Return the keys of a row that were measured by the clock or a counter."""
  timing = {'latency_ms': found['latency_ms'][name]}
  if name in found['speedups']:
    timing['speedup_rate'] = found['speedups'][name]
  if len(found['batch_speedups'].get(name, ())) > 1:
    timing['speedup_rates'] = found['batch_speedups'][name]
  if name in found['energy_uj']:
    timing['energy_uj'] = found['energy_uj'][name]
    timing['energy_source'] = energy.MEASURED
  return timing


TASKS: dict[str, Callable[[Experiment, Console], None]] = {
  'bench': bench,
  'compress': compress,
  'evaluate': evaluate,
  'export': export,
  'publish': publish,
  'report': show,
  'search': search,
  'study': search,
  'train': compress,
}
