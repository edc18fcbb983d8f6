"""Training curves: a mean per epoch, a line per run."""

from tests.tsukiji.report.test_report import study_curves
from tsukiji.report import theme, training_curves
from tsukiji.report.theme import DARK


def test_by_epoch_averages_and_sorts() -> None:
  metrics = [
    {'epoch': 2, 'split': 'train', 'loss': 1.0},
    {'epoch': 1, 'split': 'train', 'loss': 4.0},
    {'epoch': 1, 'split': 'train', 'loss': 2.0},
    {'epoch': 1, 'split': 'train', 'loss': float('nan')},
    {'epoch': 1, 'split': 'validation', 'loss': 9.0},
    {'split': 'train', 'loss': 9.0},
  ]
  assert training_curves.by_epoch(metrics, 'train', 'loss') == [[1, 3], [2, 1]]
  assert training_curves.by_epoch(metrics, 'train', 'accuracy') == []


def test_runs_without_numbers_are_left_out() -> None:
  runs = {'a': [], 'b': [{'epoch': 1, 'split': 'test', 'loss': 1.0}]}
  assert training_curves.drawable(runs) == {}
  assert list(training_curves.drawable(runs | study_curves())) == [
    'dense',
    'prune90',
  ]


def test_of_many_runs_the_dense_ones_are_drawn() -> None:
  one = study_curves()['dense']
  runs = {f'net-{seed}-{name}': one for name in 'ab' for seed in range(10)}
  assert len(training_curves.drawable(runs)) == len(theme.STYLES)
  runs |= {'net-0-dense': one}
  assert list(training_curves.drawable(runs)) == ['net-0-dense']


def test_a_line_per_run_and_split() -> None:
  figure = training_curves.training(study_curves(), DARK)
  loss, accuracy = figure.axes
  assert len(loss.lines) == 4
  assert len(accuracy.lines) == 2
  assert list(accuracy.lines[0].get_ydata())[:2] == [50, 75]
  names = [text.get_text() for text in figure.legends[0].get_texts()]
  assert names == ['dense', 'prune90']


def test_the_first_runs_look_different() -> None:
  runs = {str(i): study_curves()['dense'] for i in range(18)}
  lines = training_curves.training(runs, DARK).axes[1].lines
  looks = {(line.get_color(), line.get_linestyle()) for line in lines}
  assert len(looks) == 18
