"""What a report says of a search, and the figures it draws."""

import io
import itertools
import statistics

import pytest
from matplotlib.image import imread

from tsukiji import report
from tsukiji.report import (
  figures,
  html,
  parallel_coordinates,
  search_data,
  tables,
)
from tsukiji.report import search_figures as pictures
from tsukiji.report.contents import Contents
from tsukiji.report.search_data import Range, Searched, Trial
from tsukiji.report.theme import DARK, LIGHT, png

RANGES = {
  'train.lr': Range(True, ()),
  'train.optimizer': Range(False, ('adamw', 'sgd')),
  'train.momentum': Range(False, ()),
  'networks.net.sizes.kernel': Range(False, ()),
}


def one(designer: str, seed: int, number: int) -> Trial:
  """Return a trial; every fifth is infeasible."""
  x = (7 * number + 3 * seed + len(designer)) % 11
  values = {'val_accuracy': 0.8 + 0.01 * x, 'bytes': 1e5 * (1 + x)}
  params = {
    'train.lr': 10.0 ** -(1 + x % 4),
    'train.optimizer': 'sgd' if x % 2 else 'adamw',
    'networks.net.sizes.kernel': 2 + x % 5,
  }
  if x % 2:
    params['train.momentum'] = 0.5
  failed = number % 5 == 4
  return Trial(designer, seed, number, {} if failed else values, params, 20.0)


def searched(objectives: int = 2, importances: bool = True) -> Searched:
  """Return two designers, three seeds, ten search_data."""
  every = itertools.product(('gp', 'random'), range(3), range(10))
  found = [one(*where) for where in every]
  names = ('val_accuracy', 'bytes')[:objectives]
  found = [
    t._replace(values={k: v for k, v in t.values.items() if k in names})
    for t in found
  ]
  shares = {'train.lr': 0.7, 'train.optimizer': 0.3} if importances else {}
  return Searched(found, RANGES, shares)


def test_courses_never_fall_and_end_at_the_best() -> None:
  found = search_data.courses(searched())
  assert {name: len(seeds) for name, seeds in found.items()} == {
    'gp': 3,
    'random': 3,
  }
  for course in found['gp']:
    assert course == sorted(course) and len(course) == 10
  own = [t for t in searched().trials if (t.designer, t.seed) == ('gp', 1)]
  assert found['gp'][1][-1] == max(map(search_data.accuracy, own))


@pytest.mark.parametrize('count', [1, 2, 4])
def test_the_expected_best_is_that_of_all_draws(count: int) -> None:
  values = [0.3, 0.9, 0.1, 0.5]
  draws = itertools.combinations(values, count)
  assert search_data.best_of(values, count) == pytest.approx(
    statistics.fmean(map(max, draws))
  )


def test_twice_as_many_needs_several_seeds() -> None:
  full = searched()
  more = search_data.twice(full)
  assert len(more) == 10 and more == sorted(more)
  single = [t for t in full.trials if t.seed == 0]
  assert search_data.twice(full._replace(trials=single)) == []


def test_the_table_has_the_best_first_and_dashes_where_not_active() -> None:
  heads, *rows = search_data.table(searched())
  assert heads[1:3] == [
    'validation accuracy, %',
    'size of the file, kB',
  ]
  assert heads[-4:] == ['lr', 'optimizer', 'momentum', 'kernel']
  assert len(rows) == search_data.SHOWN
  accuracies = [float(row[1]) for row in rows]
  assert accuracies == sorted(accuracies, reverse=True)
  for row in rows:
    assert (row[-2] == '–') == (row[-3] == 'adamw')
  nothing = [t._replace(values={}) for t in searched().trials]
  assert search_data.table(searched()._replace(trials=nothing)) == []


def test_words_name_designers_and_failures() -> None:
  gp, random, twice = search_data.sentences(searched())
  assert gp.startswith('gp: 90.00 % on the validation set is the best of 10')
  assert '6 of 30 were infeasible' in random
  assert twice.startswith('random with twice as many trials')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('objectives', 'importances', 'names'),
  [
    (2, True, ['course', 'front', 'parallel', 'slices', 'importances']),
    (1, False, ['course', 'parallel', 'slices']),
  ],
)
def test_there_is_a_figure_for_what_there_is(
  objectives: int, importances: bool, names: list[str]
) -> None:
  found = figures.draw([], {}, {}, [searched(objectives, importances)])
  paths = [f'figures/search_{name}.png' for name in names]
  assert [picture.path for picture in found] == paths
  for picture in found:
    assert picture.alt and picture.light != picture.dark
    assert imread(io.BytesIO(picture.light)).shape[1] == 1920


def test_every_trial_is_a_line_over_its_parameters() -> None:
  full = searched()
  [axes] = parallel_coordinates.draw(full, LIGHT).axes
  labels = [label.get_text().strip() for label in axes.get_xticklabels()]
  assert labels == [
    'lr',
    'optimizer',
    'momentum',
    'kernel',
    parallel_coordinates.ACCURACY,
  ]
  done = sorted((t for t in full.trials if t.values), key=search_data.accuracy)
  [lines] = axes.collections
  paths = [path.vertices for path in lines.get_paths()]
  assert len(paths) == len(done)
  for trial, path in zip(done, paths, strict=True):
    assert (path[2, 1] == parallel_coordinates.UNUSED) == (
      'train.momentum' not in trial.params
    )
    assert path[1, 1] == (trial.params['train.optimizer'] == 'sgd')
  heights = [path[-1, 1] for path in paths]
  assert heights == sorted(heights) and (heights[0], heights[-1]) == (0, 1)
  bright = [sum(color[:3]) for color in lines.get_colors()]
  assert bright[-1] == max(bright)


def test_a_parameter_that_no_trial_has_gets_no_axis() -> None:
  full = searched()
  single = [t for t in full.trials if 'train.momentum' not in t.params]
  [axes] = parallel_coordinates.draw(full._replace(trials=single), DARK).axes
  assert len(axes.get_xticklabels()) == 4


def test_one_value_lies_in_the_middle() -> None:
  for span in (Range(False, ()), Range(True, ()), Range(False, ('3',))):
    assert parallel_coordinates.scale(span, [3])(3) == 0.5


def test_a_panel_is_drawn_for_each_parameter() -> None:
  figure = pictures.slices(searched(), LIGHT)
  shown = [axes for axes in figure.axes if axes.get_visible()]
  titles = [axes.get_title(loc='left') for axes in shown]
  assert titles == ['lr', 'optimizer', 'momentum', 'kernel']
  assert shown[0].get_xscale() == 'log'
  ticks = [label.get_text() for label in shown[1].get_xticklabels()]
  assert ticks == ['adamw', 'sgd']
  assert png(pictures.slices(searched(), DARK))


def test_the_band_is_of_seeds_and_lines_are_medians() -> None:
  figure = pictures.course(searched(), LIGHT)
  [axes] = figure.axes
  labels = [line.get_label() for line in axes.lines]
  assert labels == ['gp', 'random', 'random, twice as many (expected)']
  found = search_data.courses(searched())['gp']
  expected = [100 * statistics.median(x) for x in zip(*found, strict=True)]
  assert list(axes.lines[0].get_ydata()) == pytest.approx(expected)


def test_short_trials_take_less_along_the_course() -> None:
  drawn = searched()
  every = [t._replace(share=1 / 4) for t in drawn.trials if t.seed < 2]
  figure = pictures.course(drawn._replace(trials=every), LIGHT)
  [axes] = figure.axes
  assert axes.get_xlabel() == 'trials of full length'
  assert list(axes.lines[0].get_xdata()) == [n / 4 for n in range(1, 11)]
  expected = search_data.courses(drawn._replace(trials=every))['gp']
  means = [100 * statistics.median(x) for x in zip(*expected, strict=True)]
  assert list(axes.lines[0].get_ydata()) == pytest.approx(means)


@pytest.mark.slow
def test_a_report_has_the_search_in_both_forms(tmp_path) -> None:
  row, full = {'recipe': 'dense', 'role': 'searched'}, searched()
  both = [full, full._replace(recipe='mix')]
  path = report.write(tmp_path, [row], report.Extras('T', searched=both))
  text = (tmp_path / 'report.md').read_text()
  assert '### Best trials' in text and '## The search' in text
  assert '## The search for mix' in text
  assert '| trial | validation accuracy, % |' in text
  for name in ('search_course', 'search_mix_course'):
    assert (tmp_path / 'figures' / f'{name}.png').exists()
  page = path.read_text()
  assert 'class="plain"' in page and '<b>recipe</b>' in page
  assert '>gp-' in page


def test_plain_tables_escape_what_they_are_given() -> None:
  rows = [['a|b', 'c'], ['<x>', '1']]
  assert tables.plain(rows).splitlines()[2] == '| &lt;x&gt; | 1 |'
  one = searched()
  params = one.trials[0].params | {'train.optimizer': '<x>'}
  first = one.trials[0]._replace(params=params, values={'val_accuracy': 1.0})
  reported = one._replace(trials=[first])
  page = html.page(Contents('t', [], searched=[reported]))
  assert '&lt;x&gt;' in page and '<x>' not in page


def test_what_is_outside_the_budget_is_not_the_best() -> None:
  values = {'bytes': 3e3, 'val_accuracy': 0.9}
  few = Trial('gp', 0, 0, values, {'train.lr': 0.1}, 1.0)
  many = few._replace(
    number=1, values={'bytes': 9e3, 'val_accuracy': 0.95}, inside=False
  )
  found = Searched([few, many], RANGES, {})
  assert found.objectives == ['val_accuracy', 'bytes']
  assert search_data.courses(found) == {'gp': [[0.9, 0.9]]}
  assert [row[0] for row in search_data.table(found)[1:]] == [
    'gp-0, 0',
    'gp-0, 1',
  ]
  (said,) = search_data.sentences(found)
  assert said.startswith('gp: 90.00 %')
  assert said.endswith('0 of 2 were infeasible, 1 outside the budget')
