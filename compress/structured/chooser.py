"""The choice of a structure: every family on every weight, and the best."""

from typing import Any, NamedTuple

import numpy as np
from flax import struct

from compress import allocation, tree
from compress.method import Ctx, Method
from compress.structured import methods
from compress.structured.methods import FAMILIES, Structured, label
from compress.structured.tiles import grid
from compress.tree import Array, Params, Path

RANKS = {'toeplitz': (1, 2, 4)}  # that are tried; others have none


class Candidate(NamedTuple):
  """A structure: the arguments of `structured.project`."""

  family: str
  block: int
  rank: int


@struct.dataclass
class Chosen(Structured):
  """A structured weight that still knows what else was tried.

  Attributes:
    tried: The label and the damage of each candidate, the least first.
  """

  tried: tuple[tuple[str, float], ...] = struct.field(pytree_node=False)

  def freeze(self) -> Structured:
    """Return the node without what was tried."""
    return Structured(
      self.values, self.held, self.gain, self.family, self.shape
    )

  def describe(self) -> str:
    """Return what was chosen, and what each candidate would have cost."""
    costs = ', '.join(f'{name} {harm:+.3g}' for name, harm in self.tried)
    return f'{super().describe()} (damage: {costs})'


def auto(
  size: float,
  *,
  damage: str = 'loss',
  families: tuple[str, ...] = tuple(FAMILIES),
) -> Method:
  r"""Give each weight the structure that hurts least at one size.

  No theory tells which structure suits a weight (Cheng+ 2018, arXiv
  1710.09282, section III), so each is tried: of every family the smallest
  tiles that take at most the share `size` of the numbers, projected from the
  trained weight, measured alone (`allocate.damages`). The least damage wins.
  It is that before any retraining: a guide, not a forecast. Tiles may reach
  beyond a matrix; a weight of which no tiles are as small stays. The node
  tells what was tried (`Chosen.told`).

  Args:
    size: Share of the numbers of each weight that are left at most, in (0, 1).
    damage: 'loss', 'fisher', 'energy' or 'signal'; see
      `allocate.sensitivity`.
    families: What is tried, of 'butterfly', 'circulant', 'fastfood' and
      'toeplitz' (of displacement ranks 1, 2 and 4).

  Returns:
    The method.

  Raises:
    ValueError: If an argument is impossible, a weight is not plain, or no
      tiles of any weight are as small.
  """
  where = 'structured.auto'
  if not 0 < size < 1:
    raise ValueError(
      f'{where}: expected a size in (0, 1), got {size!r}. It is the share of '
      'the numbers of each weight that is left.'
    )
  for what, got, names in (
    ('damage', (damage,), allocation.DAMAGES),
    ('families', families, FAMILIES),
  ):
    if not got or not set(got) <= {*names}:
      raise ValueError(
        f'{where}: expected {what} of {", ".join(names)}, got {got!r}.'
      )

  def init(params: Params, ctx: Ctx) -> Params:
    methods.refuse_nodes(where, params)
    found: dict[Path, list[Candidate]] = {}
    tree.map_arrays(
      lambda path, w: found.setdefault(
        path, candidates(w.shape, size, families)
      ),
      params,
    )
    tried = {path: fit for path, fit in found.items() if fit}
    methods.expect_any(where, tried, found)
    harm = allocation.damages(
      ctx,
      params,
      tried,
      lambda path, w, c: methods.project(path, w, *c),
      damage,
    )

    def best(path: Path, w: Array) -> Any:
      if path not in tried:
        return w
      return _best(path, w, tried[path], np.asarray(harm[path]))

    return tree.map_arrays(best, params)

  return Method(init)


def candidates(
  shape: tuple[int, ...], size: float, families: tuple[str, ...]
) -> list[Candidate]:
  """Return the smallest tiles of each family and rank that fit in a size.

  >>> candidates((64, 32), 0.1, ('circulant', 'fastfood'))
  [Candidate(family='circulant', block=16, rank=1), ...]
  """
  found = []
  for family in families:
    most = methods.whole(shape, True)
    for rank in RANKS.get(family, (1,)):
      for block in (2**k for k in range(1, most.bit_length())):
        rows, columns = grid(shape, block)
        lines = FAMILIES[family].lines(block, rank)
        if rows * columns * lines * block <= size * np.prod(shape):
          found.append(Candidate(family, block, rank))
          break
  return found


def _best(
  path: Path, w: Array, tried: list[Candidate], harm: np.ndarray
) -> Chosen:
  """Return the weight in the structure of least damage."""
  order = np.argsort(harm, kind='stable')
  labels = tuple(
    (
      label(c.family, FAMILIES[c.family].lines(c.block, c.rank), c.block),
      float(harm[i]),
    )
    for i, c in ((i, tried[i]) for i in order)
  )
  made = methods.project(path, w, *tried[order[0]])
  return Chosen(
    made.values, made.held, made.gain, made.family, made.shape, labels
  )
