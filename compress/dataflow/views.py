"""Parameters under changes of layout: which axis of a value is which.

A value of a traced program that is still a parameter, only transposed, cast,
reshaped, sliced or broadcast, is described by a `View`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from compress.tree import Path

# Operations on one value that keep its numbers.
LAYOUT = {
  *('broadcast_in_dim', 'convert_element_type', 'copy', 'copy_p'),
  *('dynamic_slice', 'expand_dims', 'optimization_barrier', 'pvary'),
  *('reduce_precision', 'reshape', 'rev', 'sharding_constraint', 'slice'),
  *('squeeze', 'stop_gradient', 'transpose'),
}
PART = {'dynamic_slice', 'rev', 'slice'}  # of the numbers, or in other order


class View(NamedTuple):
  """A value that is a parameter in another layout.

  Attributes:
    path: Of the parameter.
    shape: Of the parameter.
    axes: For each axis of the value, the axes of the parameter that it runs
      along, major to minor; `()` for a new axis.
    whole: Whether the value has every number of the parameter, in the order
      that `axes` says.
    spread: Whether the value repeats the numbers of the parameter.
  """

  path: Path
  shape: tuple[int, ...]
  axes: tuple[tuple[int, ...], ...]
  whole: bool = True
  spread: bool = False

  def along(self, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of the parameter along some axes of the value."""
    found = (axis for i in axes for axis in self.axes[i])
    return tuple(dict.fromkeys(found))


class Parts(NamedTuple):
  """A value that joins views along an axis.

  Attributes:
    views: In order.
    sizes: Their lengths along the axis.
    axis: Of the value.
  """

  views: tuple[View | None, ...]
  sizes: tuple[int, ...]
  axis: int


def of(path: Path, x: Any) -> View:
  """Return the view of a parameter as it is."""
  return View(path, tuple(x.shape), tuple((i,) for i in range(x.ndim)))


def through(eqn: Any, view: View) -> View:
  """Return a view behind an operation of `LAYOUT`."""
  name, params = eqn.primitive.name, eqn.params
  before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  if name == 'transpose':
    return view._replace(
      axes=tuple(view.axes[i] for i in params['permutation'])
    )
  if name == 'broadcast_in_dim':
    return _broadcast(view, before, after, params['broadcast_dimensions'])
  if name in ('reshape', 'squeeze', 'expand_dims'):
    return view._replace(axes=_reshaped(view.axes, before, after))
  if name in PART:
    return view._replace(whole=view.whole and name != 'rev' and before == after)
  return view


def stacked(view: View) -> View:
  """Return the view of one of the entries along the first axis."""
  return view._replace(axes=view.axes[1:])


def _broadcast(
  view: View,
  before: tuple[int, ...],
  after: tuple[int, ...],
  places: Sequence[int],
) -> View:
  axes: list[tuple[int, ...]] = [()] * len(after)
  for i, place in enumerate(places):
    axes[place] = view.axes[i]
  spread = view.spread or math.prod(after) > math.prod(before)
  return view._replace(axes=tuple(axes), spread=spread)


def _reshaped(
  axes: tuple[tuple[int, ...], ...],
  before: tuple[int, ...],
  after: tuple[int, ...],
) -> tuple[tuple[int, ...], ...]:
  """Return the axes behind a reshape.

  Axes are matched in runs of equal size. An axis that is split gives its own to
  each of its parts.
  """
  found: list[tuple[int, ...]] = []
  i = 0
  while len(found) < len(after):
    end, size = len(found) + 1, after[len(found)]
    if size == 1 and not (i < len(before) and before[i] == 1):
      found.append(())
      continue
    while size != 1 and before[i] == 1:
      i += 1
    run, total = dict.fromkeys(axes[i]), before[i]
    i += 1
    while size != total:
      if total < size:
        run |= dict.fromkeys(axes[i])
        total *= before[i]
        i += 1
      else:
        size *= after[end]
        end += 1
    wide = after[len(found) : end]
    found += [tuple(run) if n > 1 or len(wide) == 1 else () for n in wide]
  return tuple(found)
