"""Kinds of nodes, and which methods may follow which in a chain.

A method wraps the innermost arrays of the nodes that earlier methods made.
Not every nesting is valid: a weight has one grid, codes cannot be factorized,
and a mask inside signs would not give zeros. `REFUSED` lists all invalid
pairs; any other two kinds may be chained.
"""

from typing import Any

from compress import tree
from compress.tree import Compressed, Params, Path

MASK = 'mask'  # entries fixed at exactly 0
CHANNELS = 'channels'  # a weight without its removed channels
FACTORS = 'factors'  # a product of kernels
STRUCTURE = 'structure'  # tiles or filters made from fewer numbers
GRID = 'grid'  # few bits per number
SIGNS = 'signs'  # one bit per number
CODEBOOK = 'codebook'  # indices into stored values
INPUT_SIGNS = 'input signs'  # a weight that multiplies signs of its inputs
SIGNAL = 'signal'  # changes inputs or gradients, not the weight
ARRAYS = 'arrays'  # of methods that compute on plain arrays

VALUES = (GRID, SIGNS, CODEBOOK)  # kinds that quantize the numbers of a weight
KINDS = (
  *(MASK, CHANNELS, FACTORS, STRUCTURE, INPUT_SIGNS, SIGNAL, ''),
  *VALUES,
)

_ONE = (
  "Give each weight one {} method, selected with `only('path', ...)`.".format
)
_FIRST = 'Put it first: "{where}(...) >> ...".'
_ONE_GRID = ('weights that are not quantized yet', _ONE('quantization'))
_ARRAYS = ('plain arrays', _FIRST)

# Kind of a method -> kinds of nodes that it cannot follow -> what it expects
# and how to fix the chain.
REFUSED: dict[str, dict[str, tuple[str, str]]] = {
  GRID: dict.fromkeys(VALUES, _ONE_GRID),
  SIGNS: dict.fromkeys(VALUES, _ONE_GRID),
  CODEBOOK: dict.fromkeys(VALUES, _ONE_GRID),
  MASK: {
    MASK: ('weights that are not pruned yet', _ONE('pruning')),
    **dict.fromkeys(
      (SIGNS, CODEBOOK, STRUCTURE), ('weights that can be 0', _FIRST)
    ),
  },
  FACTORS: dict.fromkeys(
    (MASK, FACTORS, STRUCTURE, *VALUES), ('dense weights', _FIRST)
  ),
  STRUCTURE: {
    kind: ('plain arrays', f'{_FIRST} {_ONE("such")}')
    for kind in KINDS
    if kind != CHANNELS
  },
  INPUT_SIGNS: {
    INPUT_SIGNS: ('inputs that are not binary yet', _ONE('such')),
    **dict.fromkeys(VALUES, ('weights that are not quantized yet', _FIRST)),
  },
  ARRAYS: dict.fromkeys(KINDS, _ARRAYS),
}


def refuse(where: str, kind: str, params: Params) -> None:
  """Check that a method may be chained after those that made a tree.

  Args:
    where: Name of the method, for error messages.
    kind: The kind of its nodes. A kind that is not in `REFUSED` is valid after
      any other.
    params: A tree of arrays and nodes.

  Raises:
    ValueError: If a node is of a kind that the method cannot follow.
  """
  table = REFUSED.get(kind, {})

  def visit(path: Path, node: Compressed) -> Any:
    if node.kind in table:
      expected, fix = table[node.kind]
      raise ValueError(
        f'{where}: expected {expected}, got {type(node).__name__} at {path}. '
        f'{fix.format(where=where)}'
      )
    return node

  tree.map_nodes(Compressed, visit, params)
