"""The report of an experiment: files in its workdir, a terminal table."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from tsukiji import report
from tsukiji.console import plain
from tsukiji.experiments import searching, store
from tsukiji.experiments.jobs import Experiment
from tsukiji.experiments.store import Row
from tsukiji.report import search_data
from tsukiji.report.search_data import Searched
from tsukiji.training import loop

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


class Report(NamedTuple):
  """The report of a finished experiment.

  Attributes:
    rows: One per network, recipe and seed.
    searched: The results of each stage of a search.
    path: Of report.html.
    verdict: Sentences on the best network inside a budget.
  """

  rows: list[Row]
  searched: Sequence[Searched]
  path: pathlib.Path
  verdict: Sequence[str] = ()


def write(experiment: Experiment) -> Report:
  """Write report.md, report.html and the figures.

  Raises:
    ValueError: If the experiment is not finished.
  """
  config, rows = experiment.config, store.finished_rows(experiment.folder)
  searched = searching.found(experiment)
  verdict = searching.verdict(experiment, rows)
  path = report.write(
    experiment.folder,
    [*rows, *report.summarize(rows)],
    report.Extras(
      config.title or 'Experiment',
      loop.curves(experiment.folder),
      _notes(config.measure.engines),
      config.figures,
      searched,
      verdict,
    ),
  )
  return Report(rows, searched, path, verdict)


def show(found: Report, console: Console) -> None:
  """Print the table and the sentences of a report."""
  summary = report.summarize(found.rows)
  console.print(report.table(summary))
  lines = report.sentences(summary)
  lines += [f'removed by {line}' for line in report.removed(found.rows)]
  for one in found.searched:
    lines += search_data.sentences(one)
  lines += found.verdict
  for line in lines:
    console.print(plain(f'- {line}'), soft_wrap=True)
  console.print(plain(f'Report: {found.path}'), soft_wrap=True)


def _notes(engines: Sequence[str]) -> tuple[str, ...]:
  """Return notes that define the numbers of a report."""
  only_jax = tuple(engines) == ('jax',)
  speed = IN_JAX if only_jax else IN_ANY.format(engines=', '.join(engines))
  return SIZE, speed, SCORE
