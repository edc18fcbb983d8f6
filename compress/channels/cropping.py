"""The smallest input on which a network has the structure of the full one.

What depends on structure alone, as the dependencies of channels, is found much
faster on one small example than on a batch of large ones.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax

from compress.tree import Array

Crop: TypeAlias = Callable[[Any], Any]  # the input of a network -> smaller
Operation: TypeAlias = tuple[str, tuple[int, ...]]  # name, shape of a result


def smallest(run: Callable[[Crop], Array]) -> Crop:
  """Return the crop to the smallest input that keeps the structure.

  The structure is kept if the program has the same operations, and no axis of
  a value becomes 1 or 0 that was longer: no window falls off the border, and
  every normalization still sees several values.

  Args:
    run: Applies the network to its input `[examples, ..., channels]`, changed
      by a crop; traced only.

  Returns:
    The crop. It changes nothing where a network takes no other input, as with
    a dense layer behind a flattened image.
  """
  one = _operations(run, _crop(None))
  if one is None:
    return lambda x: x
  sides = _sides(run)

  def keeps(side: int) -> bool:
    small = _operations(run, _crop(side))
    return small is not None and _same_structure(one, small)

  low, high = 0, max(sides, default=0)
  while high > 1 and keeps(high // 2):
    high //= 2
  low = high // 2
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if keeps(middle) else (middle, high)
  return _crop(high)


def _crop(side: int | None) -> Crop:
  """Return the crop to one example and at most a side along other axes."""

  def crop(x: Any) -> Any:
    return x[(slice(1), *(slice(side) for _ in x.shape[1:-1]))]

  return crop


def _sides(run: Callable[[Crop], Array]) -> tuple[int, ...]:
  """Return the lengths of the axes between examples and channels."""
  found: list[tuple[int, ...]] = []

  def look(x: Any) -> Any:
    found.append(x.shape[1:-1])
    return x

  jax.eval_shape(lambda: run(look))
  return tuple(itertools.chain(*found))


def _operations(
  run: Callable[[Crop], Array], crop: Crop
) -> list[Operation] | None:
  """Return the operations of a network; None if it refuses the input."""
  try:
    program = jax.make_jaxpr(lambda: run(crop))()
  except Exception:  # networks raise whatever they like
    return None
  return list(_flat(program.jaxpr))


def _flat(jaxpr: Any) -> Iterator[Operation]:
  """Yield the operations of a program, those of inner programs included."""
  for operation in jaxpr.eqns:
    for value in operation.outvars:
      yield operation.primitive.name, getattr(value.aval, 'shape', ())
    for parameter in operation.params.values():
      several = isinstance(parameter, list | tuple)
      for x in parameter if several else (parameter,):
        inner = getattr(x, 'jaxpr', x)  # of a closed program
        if hasattr(inner, 'eqns'):
          yield from _flat(inner)


def _same_structure(full: list[Operation], small: list[Operation]) -> bool:
  """Return whether operations are equal and no axis has vanished."""
  return [name for name, _ in full] == [name for name, _ in small] and all(
    len(a) == len(b) and all(n >= min(m, 2) for m, n in zip(a, b, strict=True))
    for (_, a), (_, b) in zip(full, small, strict=True)
  )
