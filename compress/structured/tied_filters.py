r"""Transferred filters: a bank of filters that are moved copies of a few.

Every filter of a convolution is $T_t f_s$: one of few stored filters $f_s$
under one of the moves $T_t$ of a group. A move selects numbers of a stored
filter in some order, all with one sign, so that least squares are means.
"""

import math
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.optimize import linear_sum_assignment

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Params, Path

ROUNDS = 10  # of assignment and least squares


class Moves(NamedTuple):
  """The moves of a family on filters of one shape.

  Attributes:
    at: The index in the stored filter of each number of the moved one,
      `[moves, height * width * in]`.
    sign: Factor of each move, `[moves]`.
    shape: Of a stored filter, `(height, width, in)`.
  """

  at: np.ndarray
  sign: np.ndarray
  shape: tuple[int, ...]


@struct.dataclass
class Transferred(Compressed):
  """A bank of filters made from fewer.

  Attributes:
    values: The stored filters, `[height, width, in, stored]`.
    order: Index of the moved filter of each output, `[outputs]`: that of move
      t and filter s is `t * stored + s`.
    gain: Factors of the outputs, `[outputs]`, or None.
    family: One of `FAMILIES`.
    extent: The number of the family: copies, or the range of a crop.
    shape: Of the bank, `(height, width, in, outputs)`.
  """

  trainable: ClassVar[tuple[str, ...]] = ('values',)
  inner: ClassVar[tuple[str, ...]] = ('values',)
  kind: ClassVar[str] = kinds.STRUCTURE

  values: Any
  order: Array
  gain: Array | None
  family: str = struct.field(pytree_node=False)
  extent: int = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  def decode(self) -> Array:
    """Return the bank."""
    moves = FAMILIES[self.family](self.shape[:-1], self.extent)
    every = moved(self.values, moves)
    w = every[:, self.order].reshape(self.shape)
    return w if self.gain is None else (w * self.gain).astype(w.dtype)

  def scale_channels(self, gain: Array) -> 'Transferred':
    """Return the node times `gain`; the stored filters are not changed."""
    return self.replace(gain=gain if self.gain is None else self.gain * gain)

  def describe(self) -> str:
    """Return the numbers of filters, as text."""
    stored = tree.decode(self.values).shape
    return (
      f'{self.shape[-1]} filters -> {stored[-1]}, '
      f'{math.prod(self.shape):,} -> {math.prod(stored):,} numbers, '
      f'{self.family}'
    )


def moved(values: Array, moves: Moves) -> Array:
  """Return every stored filter under every move, `[numbers, all]`."""
  flat = values.reshape(-1, values.shape[-1])
  sign = jnp.asarray(moves.sign, flat.dtype)
  every = flat[moves.at] * sign[:, None, None]
  return every.swapaxes(0, 1).reshape(moves.at.shape[1], -1)


def _copies(shape: tuple[int, ...], extent: int) -> Moves:
  at = np.arange(math.prod(shape))
  return Moves(np.stack([at] * extent), np.ones(extent, np.float32), shape)


def _signs(shape: tuple[int, ...], extent: int) -> Moves:
  del extent
  at, sign, _ = _copies(shape, 2)
  return Moves(at, np.array([1, -1], sign.dtype), shape)


def _turns(shape: tuple[int, ...], extent: int) -> Moves:
  at = np.arange(math.prod(shape)).reshape(shape)
  turned = [np.rot90(at, k) for k in range(4)]
  if extent == 8:
    turned += [np.flip(x, 1) for x in turned]
  flat = np.stack([x.ravel() for x in turned])
  return Moves(flat, np.ones(len(flat), np.float32), shape)


def _crops(shape: tuple[int, ...], extent: int) -> Moves:
  height, width, depth = shape
  wide = (height + extent, width + extent, depth)
  at = np.arange(math.prod(wide)).reshape(wide)
  crops = [
    at[i : i + height, j : j + width].ravel()
    for i in range(extent + 1)
    for j in range(extent + 1)
  ]
  return Moves(np.stack(crops), np.ones(len(crops), np.float32), wide)


FAMILIES = {
  'copies': _copies,
  'crops': _crops,
  'signs': _signs,
  'turns': _turns,
}


def crelu() -> Method:
  r"""Store half the filters of a convolution: the others are their negatives.

  $[\mathrm{relu}(W x), \mathrm{relu}(-W x)]$ is the ReLU of the bank $[W, -W]$
  (CReLU: Shang+ 2016, arXiv 1603.05201, definition 2.1); here the two halves
  have separate biases, and keep the positions of the trained filters.

  Returns:
    The method: half the numbers in each convolution; dense layers are not
    changed.

  Raises:
    ValueError: If there is no convolution, or one is compressed already.
  """
  return _transferred('structured.crelu', 'signs', 2)


def multi_bias(copies: int = 2) -> Method:
  r"""Store one filter for several outputs that differ in their biases.

  $y_k = \mathrm{relu}(W x + \delta_k)$ (Li+ 2016, arXiv 1604.00676, equation
  1). The biases are those of the layer, or of the norm after it, which may
  also scale: without either the outputs are equal.

  Args:
    copies: Outputs that share a filter, at least 2.

  Returns:
    The method: `copies` times fewer numbers in each convolution.

  Raises:
    ValueError: As `crelu`, or if there are fewer than 2 copies.
  """
  _expect('structured.multi_bias', 'copies from 2', copies >= 2, copies)
  return _transferred('structured.multi_bias', 'copies', copies)


def rotate(*, flips: bool = False) -> Method:
  r"""Store one filter for its turns by 0, 90, 180 and 270 degrees.

  The rotations of p4, with `flips` those of p4m (Cohen & Welling 2016, arXiv
  1602.07576, section 4; filters are shared as by Dieleman+ 2016, arXiv
  1602.02660). Inputs are not permuted with them: the outputs of the first
  convolution rotate with the image, those of later ones need not.

  Args:
    flips: Whether to use mirror images, too.

  Returns:
    The method: 4 or 8 times fewer numbers in each convolution that is square
    and larger than 1 x 1; others are not changed.

  Raises:
    ValueError: If there is no such convolution, or one is compressed already.
  """
  return _transferred('structured.rotate', 'turns', 8 if flips else 4)


def crop(extent: int = 1) -> Method:
  r"""Store larger filters, of which each output is a crop.

  A stored filter of `height + extent` by `width + extent` holds `(extent + 1)
  ** 2` filters (double convolution: Zhai+ 2016, arXiv 1610.09716, section 3,
  without pooling over crops).

  Args:
    extent: Range of the crops, at least 1.

  Returns:
    The method, for each convolution larger than 1 x 1.

  Raises:
    ValueError: If there is no such convolution, one is compressed already, or
      the extent is less than 1.
  """
  _expect('structured.crop', 'an extent from 1', extent >= 1, extent)
  return _transferred('structured.crop', 'crops', extent)


def _transferred(where: str, family: str, extent: int) -> Method:
  def fits(w: Array) -> bool:
    if w.ndim != 4 or w.shape[-1] < 2:
      return False
    height, width = w.shape[:2]
    if family == 'turns':
      return height == width > 1
    return family != 'crops' or height * width > 1

  def init(params: Params, ctx: Ctx) -> Params:
    del ctx
    kinds.refuse(where, kinds.STRUCTURE, params)
    found = []

    def make(path: Path, w: Array) -> Any:
      if not fits(w):
        return w
      found.append(path)
      return project(w, family, extent)

    made = tree.map_arrays(make, params)
    what = 'kernels [height, width, in, out] that it can move'
    _expect(where, what, bool(found), sorted(tree.paths(params)))
    return made

  return Method(init)


def project(w: Array, family: str, extent: int) -> Transferred:
  r"""Return a bank of a family near a trained one.

  $\min \sum_o \| w_o - T_{t_o} f_{s_o} \|^2$ with every pair of move and
  stored filter used at most once: an assignment and the means that are best
  for it alternate, neither of which increases the sum, starting from the
  filters of largest norm.

  Args:
    w: `[height, width, in, outputs]`.
    family: One of `FAMILIES`.
    extent: The number of the family.

  Returns:
    The node.
  """
  moves = FAMILIES[family](w.shape[:-1], extent)
  bank = np.asarray(w, np.float64).reshape(-1, w.shape[-1])
  stored = -(-bank.shape[1] // len(moves.at))
  values = _begun(bank, moves, stored)
  order = _assigned(bank, values, moves)
  for _ in range(ROUNDS):
    values = _means(bank, order, moves, stored)
    before, order = order, _assigned(bank, values, moves)
    if np.array_equal(before, order):
      break
  filters = _means(bank, order, moves, stored).reshape(*moves.shape, stored)
  return Transferred(
    jnp.asarray(filters, w.dtype),
    jnp.int32(order),
    None,
    family,
    extent,
    w.shape,
  )


def _begun(bank: np.ndarray, moves: Moves, stored: int) -> np.ndarray:
  """Return filters far from the moves of one another, the largest first."""
  values = np.zeros((math.prod(moves.shape), stored))
  gap = np.sum(bank**2, 0)
  for at in range(stored):
    values[moves.at[0], at] = bank[:, np.argmax(gap)] * moves.sign[0]
    for place, sign in zip(moves.at, moves.sign, strict=True):
      copy = sign * values[place, at]
      gap = np.minimum(gap, np.sum((bank - copy[:, None]) ** 2, 0))
  return values


def _assigned(bank: np.ndarray, values: np.ndarray, moves: Moves) -> np.ndarray:
  """Return the moved filter of each output, by optimal assignment."""
  every = values[moves.at] * moves.sign[:, None, None]
  every = every.swapaxes(0, 1).reshape(len(bank), -1)
  cost = np.sum(every**2, 0) - 2 * bank.T @ every
  chosen: np.ndarray = linear_sum_assignment(cost)[1]
  return chosen


def _means(
  bank: np.ndarray, order: np.ndarray, moves: Moves, stored: int
) -> np.ndarray:
  """Return the best stored filters for an assignment, `[numbers, stored]`."""
  move, at = order // stored, order % stored
  total = np.zeros((math.prod(moves.shape), stored))
  count = np.zeros_like(total)
  where = moves.at[move].T, at[None]
  np.add.at(total, where, bank * moves.sign[move])
  np.add.at(count, where, 1)
  return total / np.maximum(count, 1)


def _expect(where: str, expected: str, right: bool, got: Any) -> None:
  if not right:
    raise ValueError(f'{where}: expected {expected}, got {got!r}.')
