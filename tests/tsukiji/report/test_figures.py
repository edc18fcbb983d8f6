"""Which figures there are, and the words that go with them."""

import io

import matplotlib.image
import numpy as np
import pytest

from tests.tsukiji.report.test_report import study_curves, study_rows
from tsukiji.report import figures, markers, theme
from tsukiji.report.summary import summarize

NO_LATENCY = [
  {key: value for key, value in row.items() if key != 'latency_ms'}
  for row in summarize(study_rows())
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
  """Leave out the rendering where only words matter."""
  monkeypatch.setattr(theme, 'png', lambda figure: b'')


def _pixels(content: bytes) -> np.ndarray:
  return matplotlib.image.imread(io.BytesIO(content), format='png')


def test_both_pages_get_the_same_picture_in_their_colors() -> None:
  [picture] = figures.draw(NO_LATENCY, {})
  light, dark = _pixels(picture.light), _pixels(picture.dark)
  assert light.shape == dark.shape
  assert light.shape[1] == round(theme.WIDTH * theme.DPI)
  assert light[0, 0, :3].mean() > 0.9 > 0.2 > dark[0, 0, :3].mean()
  assert light[..., :3].std() > 0.02 < dark[..., :3].std()


@pytest.mark.usefixtures('quick')
def test_alternative_texts_name_the_front_and_the_runs() -> None:
  size, training = figures.draw(NO_LATENCY, study_curves())
  assert size.path == 'figures/accuracy_bytes.png'
  front = 'Pareto front: fashion_mnist: prune90+int8, 63.2, 91.'
  assert front in size.alt
  assert training.path == 'figures/training.png'
  assert 'dense, prune90' in training.alt


@pytest.mark.usefixtures('quick')
def test_no_data_no_figure() -> None:
  assert figures.draw([], {}) == []
  assert figures.draw([{'accuracy': 0.5}], {'a': []}) == []
  [only] = figures.draw([{'accuracy': 0.5, 'bytes': 9}], {})
  assert only.path == 'figures/accuracy_bytes.png'


def test_marks_of_families_and_roles_are_distinct() -> None:
  rows = [{'family': family} for family in markers.FAMILIES]
  rows += [{'role': role} for role in ('reference', *markers.HOLLOW)]
  drawn = [markers.mark(row, theme.LIGHT) for row in rows]
  looks = {(m.get_marker(), m.get_markerfacecolor()) for m in drawn}
  assert len(looks) == len(rows)
  words = [h.get_label() for h in markers.handles(rows, theme.LIGHT)]
  assert words[0] == 'reference'
  assert words[-1] == 'Pareto front'
  assert len(words) == len(rows) + 1


def test_text_that_the_font_lacks_is_replaced() -> None:
  assert theme.drawable('$a_b$ ↓ ± 築\n') == '$a_b$ ↓ ± ?'
