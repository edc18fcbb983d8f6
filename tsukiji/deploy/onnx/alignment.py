"""Operators whose operands lie alike, and those that know no order of axes."""

import math
from typing import Any

import numpy as np

from tsukiji.deploy.onnx.axes import Order, Tensor, known
from tsukiji.deploy.onnx.writer import Emit, Writer


def plainly(emit: Emit) -> Emit:
  """Return an emitter that gets its inputs as they are in the graph.

  Args:
    emit: Writer, inputs, result, settings -> name of the result.
  """

  def written(w: Writer, xs: list[Tensor], y: Tensor, **attrs: Any) -> Tensor:
    name = emit(w, [w.plain(x) for x in xs], y, **attrs)
    return y._replace(name=name)

  return written


def alike(emit: Emit) -> Emit:
  """Return an emitter of an operator on each entry, in any order of axes.

  Args:
    emit: Writer, inputs, result, settings -> name of the result.
  """

  def written(w: Writer, xs: list[Tensor], y: Tensor, **attrs: Any) -> Tensor:
    xs, like = aligned(w, xs, len(y.shape))
    name = emit(w, xs, y, **attrs)
    return y._replace(name=name, order=like.order, places=like.places)

  return written


def aligned(
  w: Writer, xs: list[Tensor], rank: int
) -> tuple[list[Tensor], Tensor]:
  """Return tensors that broadcast in the model as they do in the graph.

  Args:
    w: The writer.
    xs: The tensors.
    rank: Number of axes to which they broadcast.

  Returns:
    The tensors, and one with their order and places.
  """
  computed = [x for x in xs if x.value is None]
  whole = [x for x in computed if len(x.shape) == rank]
  most = max(whole, key=_size, default=None)
  order = most.axes if most else (*range(rank),)
  flat = len(computed) == len(whole) and not any(x.order for x in whole)
  places = _places(whole) if flat else None
  like = Tensor('', (), None, order=known(order), places=places)
  found = []
  for x in xs:
    if x.value is not None:
      name = _constant(w, x.value, like, rank) if whole else w.plain(x).name
      found.append(x._replace(name=name))
    elif places is not None and x.places is not None:
      found.append(w.divided(x))
    else:
      found.append(_moved(w, w.divided(x), order))
  return found, like


def _size(x: Tensor) -> tuple[int, bool]:
  """Return the entries of an example, and whether they have an own order."""
  return math.prod(n or 1 for n in x.shape), x.order is not None


def _places(xs: list[Tensor]) -> np.ndarray | None:
  """Return the order of the last axis that all share, None if they do not."""
  found = {id(x.places): x.places for x in xs if x.shape[-1:] not in ((), (1,))}
  return None if len(found) > 1 else next(iter(found.values()), None)


def _moved(w: Writer, x: Tensor, order: Order) -> Tensor:
  """Return a tensor in an order of perhaps more axes."""
  more = len(order) - len(x.shape)
  if more and x.shape and known(order):
    axes = w.integers(*range(more))
    name = w.add('Unsqueeze', w.plain(x).name, axes)
    x = Tensor(name, (*(1,) * more, *x.shape), x.dtype)
  elif more:
    return w.plain(x)
  return w.moved(x, order)


def _constant(w: Writer, value: np.ndarray, like: Tensor, rank: int) -> str:
  """Return the name of a constant that broadcasts to tensors in an order."""
  if value.size == 1:
    return w.array(value, lambda x: x.reshape(()), 'number')

  def turned(x: np.ndarray) -> np.ndarray:
    x = x.reshape((1,) * (rank - x.ndim) + x.shape)
    if like.places is not None and x.shape[-1] > 1:
      x = x[..., like.places]
    x = x.transpose(like.order or range(rank))
    leading = next(i for i, n in enumerate(x.shape) if n != 1)
    return x.reshape(x.shape[leading:])

  places = None if like.places is None else like.places.tobytes()
  return w.array(value, turned, (like.order, rank, places))
