"""Choice of a structure: every family on every weight, and the best."""

from typing import Any, NamedTuple

import numpy as np
from flax import struct

from compress import allocation, kinds, tree
from compress.allocation import MakeMeasure
from compress.method import Ctx, Method, shapes_only
from compress.structured import matrices
from compress.structured.matrices import FAMILIES, Structured, label
from compress.tree import Array, Params, Path
from compress.unchanged import warn_unchanged

RANKS = {'toeplitz': (1, 2, 4)}  # to be measured; others have none


class Candidate(NamedTuple):
  """A structure: the arguments of `matrices.project`."""

  family: str
  block: int
  rank: int


@struct.dataclass
class Chosen(Structured):
  """A structured weight with the sensitivity to each candidate.

  Attributes:
    tried: The label and the sensitivity of each candidate, the least first.
  """

  tried: tuple[tuple[str, float], ...] = struct.field(pytree_node=False)

  def freeze(self) -> Structured:
    """Return the node without the candidates."""
    return Structured(
      self.values, self.held, self.gain, self.family, self.shape
    )

  def describe(self) -> str:
    """Return the chosen structure and the sensitivity to each candidate."""
    tried = ', '.join(f'{name} {loss:+.3g}' for name, loss in self.tried)
    return f'{super().describe()} (sensitivity: {tried})'


def auto(
  size: float,
  *,
  sensitivity: str | MakeMeasure = 'loss',
  families: tuple[str, ...] = tuple(FAMILIES),
) -> Method:
  r"""Give each weight its least sensitive structure at one size.

  No theory predicts which structure suits a weight (Cheng+ 2018, arXiv
  1710.09282, section III), so each is measured: of every family the smallest
  tiles that take at most the share `size` of the numbers, projected from the
  trained weight on its own. Sensitivities are measured before any retraining:
  they rank structures and do not predict the loss. Tiles may reach beyond a
  matrix. The node describes its candidates.

  Args:
    size: Share of the numbers of each weight that remain at most, in (0, 1).
    sensitivity: 'loss', 'fisher', 'trace', 'energy' or 'signal'; see
      `allocation.sensitivity`.
    families: The candidates, of 'butterfly', 'circulant', 'fastfood' and
      'toeplitz' (of displacement ranks 1, 2 and 4).

  Returns:
    The method.

  Raises:
    ValueError: If an argument is out of range, a weight is compressed already,
      or no tiles of any weight are as small.

  Warns:
    UnchangedWarning: If no tiles of some weights are as small.
  """
  where = 'structured.auto'
  if not 0 < size < 1:
    raise ValueError(
      f'{where}: expected a size in (0, 1), got {size!r}. It is the share of '
      'the numbers of each weight that remain.'
    )
  allocation.expect_measure(where, sensitivity, ())
  if not families or not set(families) <= {*FAMILIES}:
    raise ValueError(
      f'{where}: expected families of {", ".join(FAMILIES)}, got {families!r}.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.STRUCTURE, params)
    found: dict[Path, list[Candidate]] = {}
    tree.map_arrays(
      lambda path, w: found.setdefault(
        path, candidates(w.shape, size, families)
      ),
      params,
    )
    tried = {path: fit for path, fit in found.items() if fit}
    matrices.expect_any(where, tried, found)
    warn_unchanged(
      where,
      [path for path in found if path not in tried],
      f'no tiles take {size} of their numbers',
    )
    losses = allocation.sensitivities(
      ctx,
      params,
      tried,
      lambda path, w, c: matrices.project(path, w, *c),
      sensitivity,
    )

    def best(path: Path, w: Array) -> Any:
      if path not in tried:
        return w
      found = losses[path]
      known = np.zeros(len(found)) if shapes_only() else np.asarray(found)
      return _best(path, w, tried[path], known)

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
    largest = matrices.covering_block(shape, True)
    for rank in RANKS.get(family, (1,)):
      for block in (2**k for k in range(1, largest.bit_length())):
        count = matrices.numbers(family, shape, block, rank)
        if count <= size * np.prod(shape):
          found.append(Candidate(family, block, rank))
          break
  return found


def _best(
  path: Path, w: Array, tried: list[Candidate], losses: np.ndarray
) -> Chosen:
  """Return the weight in its least sensitive structure."""
  order = np.argsort(losses, kind='stable')
  labels = tuple(
    (
      label(c.family, FAMILIES[c.family].lines(c.block, c.rank), c.block),
      float(losses[i]),
    )
    for i, c in ((i, tried[i]) for i in order)
  )
  made = matrices.project(path, w, *tried[order[0]])
  return Chosen(
    made.values, made.held, made.gain, made.family, made.shape, labels
  )
