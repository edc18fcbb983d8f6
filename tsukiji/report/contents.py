"""The contents of a report, for every format that it is written in."""

import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tsukiji.report.columns import Row
from tsukiji.report.figures import Picture
from tsukiji.report.search_data import Searched
from tsukiji.report.summary import Line

VERDICT = 'Within the budget'  # heads the sentences on its best network


class Extras(NamedTuple):
  """The contents of a report other than rows.

  Attributes:
    title: Heading of the report.
    curves: Objects of metrics.jsonl, by name of the run.
    notes: Sentences that close the report.
    figures: More figures by name: `title`, `x` and `lines` of
      `line_plots.draw`.
    searched: The results of searches.
    verdict: Sentences on the best network inside a budget.
  """

  title: str
  curves: Mapping[str, Sequence[Row]] = types.MappingProxyType({})
  notes: Sequence[str] = ()
  figures: Mapping[str, Row] = types.MappingProxyType({})
  searched: Sequence[Searched] = ()
  verdict: Sequence[str] = ()


class Contents(NamedTuple):
  """A report before layout.

  Attributes:
    title: Heading.
    lines: Summary rows, each with its seeds.
    sentences: The same in words.
    removed: What was removed from each network, layer by layer.
    pictures: Figures.
    notes: Sentences that close the report.
    searched: The results of searches.
    verdict: Sentences on the best network inside a budget.
    device: What C files take, a table whose first row are the heads.
  """

  title: str
  lines: Sequence[Line]
  sentences: Sequence[str] = ()
  removed: Sequence[str] = ()
  pictures: Sequence[Picture] = ()
  notes: Sequence[str] = ()
  searched: Sequence[Searched] = ()
  verdict: Sequence[str] = ()
  device: Sequence[Sequence[str]] = ()

  @property
  def means(self) -> list[Row]:
    """Return the summary rows."""
    return [row for row, _ in self.lines]
