"""Dropping layers: which units are redundant, and the network without them.

A unit (a layer with its norm and activation, or a residual block) behind which
a linear classifier is no better than before it is redundant (`linear_probe`)
(Chen & Zhao 2018, IEEE TPAMI, doi 10.1109/TPAMI.2018.2874634). The network
without it starts from the weights that are left, and `distill.kd` trains
it with the original as teacher.
"""

import dataclasses
import math
import os.path
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from tsukiji.errors import expect
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import (
  Act,
  Branch,
  Conv,
  Dense,
  Dropout,
  Flatten,
  Norm,
  PReLU,
  Spec,
)


class Unit(NamedTuple):
  """Layers that are kept or dropped as one: `spec.layers[start:stop]`.

  Attributes:
    name: Name of its layer; of a branch, the prefix of the names of its layers.
    start: Index of its first layer.
    stop: Index of the next layer.
  """

  name: str
  start: int
  stop: int


class Dropped(NamedTuple):
  """A network with fewer units.

  Attributes:
    spec: The network.
    variables: Its variables: those of the original where shapes agree.
    fresh: Layers whose shapes did not agree: they are reinitialized.
  """

  spec: Spec
  variables: dict[str, Any]
  fresh: tuple[str, ...]


def units(spec: Spec) -> tuple[Unit, ...]:
  """Return the units of a network, in order.

  A convolution or dense layer forms a unit with the norm, activation and
  dropout right behind it, a branch with its activation. Layers that only change
  the shape (pools, flattening) belong to no unit.

  >>> one, two = (Dense(name=name, features=2) for name in ('one', 'two'))
  >>> layers = (one, Act(), two)
  >>> units(Spec(name='n', input_shape=(2,), layers=layers))
  (Unit(name='one', start=0, stop=2), Unit(name='two', start=2, stop=3))
  """
  found = []
  for start, layer in enumerate(spec.layers):
    if not isinstance(layer, Conv | Dense | Branch):
      continue
    follow = Act | PReLU
    if not isinstance(layer, Branch):
      follow |= Norm | Dropout
    stop = start + 1
    while stop < len(spec.layers) and isinstance(spec.layers[stop], follow):
      stop += 1
    found.append(Unit(_name(layer), start, stop))
  return tuple(found)


def _name(layer: Any) -> str:
  """Return the common prefix of the names inside a layer."""
  names = list(_names(layer))
  shared = os.path.commonprefix(names).rpartition('_')[0]
  return shared if len(names) > 1 and shared else names[0]


def _names(layer: Any) -> Iterator[str]:
  if isinstance(layer, Branch):
    for path in layer.paths:
      for inner in path:
        yield from _names(inner)
  elif hasattr(layer, 'name'):
    yield layer.name


def removable(spec: Spec, reshape: bool = False) -> dict[str, tuple[str, ...]]:
  """Return the units that can be dropped, and what each then reinitializes.

  Args:
    spec: The network.
    reshape: Whether to count units that change the shape, as do those that
      halve the sides: without them, later layers may be reinitialized.
      Otherwise only blocks and layers whose input and output shapes agree.

  Returns:
    By unit, the layers whose weights are reinitialized. The last unit, and
    those without which the shapes of the rest do not match, are left out.
  """
  found = {}
  for unit in units(spec)[:-1]:
    if not reshape and _shape(spec, unit.start) != _shape(spec, unit.stop):
      continue
    try:
      found[unit.name] = _fresh(spec, cut(spec, {unit.name}))
    except ValueError:
      continue
  return found


def _shape(spec: Spec, at: int) -> sp.Shape:
  """Return the shape before the layer at an index."""
  return sp.output_shape(dataclasses.replace(spec, layers=spec.layers[:at]))


def cut(spec: Spec, names: Collection[str]) -> Spec:
  """Return the network without some units.

  The activation behind a block is dropped only where it would repeat a ReLU:
  then removing a block that adds 0 changes nothing.

  Args:
    spec: The network.
    names: Names of its units.

  Returns:
    The network, of the same name.

  Raises:
    ValueError: If there is no such unit, one is the last, or the shapes of the
      rest do not match.
  """
  known = [unit.name for unit in units(spec)]
  for name in names:
    what = f'units of {", ".join(known[:-1])}'
    fix = 'The last layer gives the classes and stays.'
    expect('drop_layers', name in known[:-1], what, name, fix)
  layers: list[sp.Layer] = []
  going = {
    at: isinstance(spec.layers[unit.start], Branch)
    for unit in units(spec)
    if unit.name in names
    for at in range(unit.start, unit.stop)
  }
  for at, layer in enumerate(spec.layers):
    repeats = layer == Act(fn='relu') and layers[-1:] == [layer]
    kept_act = going.get(at) and isinstance(layer, Act) and not repeats
    if at not in going or kept_act:
      layers.append(layer)
  left = dataclasses.replace(spec, layers=tuple(layers))
  try:
    sp.output_shape(left)
  except ValueError as e:
    raise ValueError(
      f'drop_layers: expected units without which the rest fits together, got '
      f'{sorted(names)}. {e}'
    ) from e
  return left


def _fresh(spec: Spec, left: Spec) -> tuple[str, ...]:
  """Return the layers of `left` whose weights are not those of `spec`."""
  before, after = _inputs(spec), _inputs(left)
  return tuple(n for n in after if not _agree(before[n], after[n]))


def _agree(one: sp.Shape, other: sp.Shape) -> bool:
  # As many numbers of two maps may be laid out in different orders.
  same_kind = len(one) == len(other)
  return one == other if same_kind else math.prod(one) == math.prod(other)


def _inputs(spec: Spec) -> dict[str, sp.Shape]:
  """Return the input that the weights of each named layer are laid out for."""
  found: dict[str, sp.Shape] = {}
  flat: sp.Shape | None = None
  for layer, before, _ in sp.walk(spec):
    if isinstance(layer, Flatten):
      flat = before
    elif hasattr(layer, 'name'):
      found[layer.name] = flat or before[-1:]
    if isinstance(layer, Conv | Dense):
      flat = None
  return found


def drop(
  spec: Spec, variables: dict[str, Any], names: Collection[str], seed: int
) -> Dropped:
  """Return a trained network without some units.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    names: Units to remove; see `removable` and `choose`.
    seed: Of the layers that are reinitialized.

  Returns:
    The smaller network. It has to be trained again, above all if `fresh`.

  Raises:
    ValueError: As `cut`.
  """
  left = cut(spec, names)
  fresh = _fresh(spec, left)
  drawn = (
    net_lib.init_variables(left, seed)
    if fresh
    else net_lib.variable_shapes(left)
  )
  kept = {
    part: {
      name: value if name in fresh else variables[part][name]
      for name, value in layers.items()
    }
    for part, layers in drawn.items()
  }
  return Dropped(left, kept, fresh)


def choose(
  spec: Spec,
  gains: dict[str, float],
  *,
  threshold: float | None = None,
  count: int | None = None,
  reshape: bool = False,
) -> tuple[str, ...]:
  """Choose the units that add least to the accuracy.

  All are chosen from one set of readings, as in the paper; how much a unit adds
  once others are gone is not measured.

  Args:
    spec: The network.
    gains: The accuracy that each unit adds, from `linear_probe.gains`.
    threshold: Units that add less accuracy are dropped.
    count: Number of units to drop, the one that adds least first.
    reshape: Whether units that change the shape may go; see `removable`.

  Returns:
    Names for `drop`, in the order of the network.

  Raises:
    ValueError: If not one of `threshold` and `count` is given, `gains` is
      not of this network, or fewer than `count` can go.
  """
  one = (threshold is None) != (count is None)
  expect(
    'drop_layers.choose', one, 'a threshold or a count', (threshold, count)
  )
  able = list(removable(spec, reshape))
  known = all(name in gains for name in able)
  expect(
    'drop_layers.choose', known, f'gains of {", ".join(able)}', list(gains)
  )
  going: list[str] = []
  for name in sorted(able, key=lambda name: gains[name]):
    enough = len(going) == count
    if enough or (threshold is not None and gains[name] >= threshold):
      break
    if _fits(spec, [*going, name]):
      going.append(name)
  right = count is None or len(going) == count
  expect('drop_layers.choose', right, f'at most {len(going)} units', count)
  return tuple(name for name in able if name in going)


def _fits(spec: Spec, names: list[str]) -> bool:
  try:
    return bool(cut(spec, names))
  except ValueError:
    return False
