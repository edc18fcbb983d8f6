"""The look of the figures: paper, ink, axes, and PNG bytes.

Figures are made without pyplot, so nothing here touches global state. The
colors are those of Okabe and Ito (2008), which color-blind readers distinguish.
"""

import functools
import io
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

DPI = 200  # figures are shown at 100 pixels an inch, crisp on dense screens
PIXEL = DPI / 72  # pixels in a point
WIDTH = 9.6  # inches
SMALL, NORMAL, LARGE = 8.0, 9.0, 11.0  # points
BLUE, SKY, GREEN = '#0072b2', '#56b4e9', '#009e73'
ORANGE, VERMILION, PURPLE = '#e69f00', '#d55e00', '#cc79a7'
COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
STYLES = tuple(itertools.product(('-', '--', ':'), COLORS))  # of lines


class Theme(NamedTuple):
  """Colors of the paper and of what is drawn on it."""

  paper: str
  ink: str
  quiet: str
  grid: str


LIGHT = Theme('#ffffff', '#1c2127', '#5d6672', '#e4e7eb')
DARK = Theme('#181c21', '#e8eaed', '#9aa4b1', '#2c333b')


def blank(height: float, theme: Theme) -> Figure:
  """Make an empty figure, `height` inches tall."""
  size = (WIDTH, height)
  layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
  out = Figure(size, DPI, facecolor=theme.paper, layout=layout)
  FigureCanvasAgg(out)
  return out


def integer_ticks(axes: Axes) -> None:
  """Put ticks at integers only, for counts such as epochs."""
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def style_axes(
  axes: Axes, theme: Theme, title: str, xlabel: str, ylabel: str
) -> None:
  """Give axes a title, labels with units, and a grid that stays behind."""
  axes.set_title(
    drawable(title),
    loc='left',
    fontsize=LARGE,
    color=theme.ink,
    parse_math=False,
  )
  for label, text in ((axes.xaxis.label, xlabel), (axes.yaxis.label, ylabel)):
    label.set(text=drawable(text), color=theme.quiet)
    label.set(fontsize=NORMAL, parse_math=False)
  axes.set_facecolor(theme.paper)
  axes.grid(color=theme.grid, linewidth=0.7)
  axes.set_axisbelow(True)
  axes.tick_params(
    colors=theme.quiet, labelcolor=theme.quiet, labelsize=SMALL, length=0
  )
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.spines['bottom'].set_color(theme.quiet)


def legend(figure: Figure, handles: Sequence[Line2D], theme: Theme) -> None:
  """Draw a legend below the axes."""
  out = figure.legend(
    handles=handles,
    loc='outside lower center',
    ncols=min(len(handles), 5) or 1,
    frameon=False,
    fontsize=SMALL,
    labelcolor=theme.ink,
  )
  for text in out.get_texts():
    text.set_parse_math(False)


def png(figure: Figure) -> bytes:
  """Return a figure as a PNG file."""
  out = io.BytesIO()
  FigureCanvasAgg(figure).print_png(out)
  return out.getvalue()


def drawable(text: str) -> str:
  """Replace what the font cannot draw.

  >>> drawable('int8 µ\\n築')
  'int8 µ ?'
  """
  line = ' '.join(text.split())
  return ''.join(c if ord(c) in _glyphs() else '?' for c in line)


@functools.cache
def _glyphs() -> frozenset[int]:
  return frozenset(get_font(findfont(FontProperties())).get_charmap())
