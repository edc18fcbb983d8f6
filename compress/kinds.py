"""Kinds of nodes, and which methods may follow which in a chain.

A method wraps the innermost arrays of the nodes that earlier methods made.
Not every nesting means something: a weight has one grid, factors cannot be
taken of codes, and a mask inside signs would not give zeros. `REFUSED` is the
whole list; a method whose kind is not refused by it may be chained freely.
"""

from typing import Any

from compress import tree
from compress.tree import Compressed, Params, Path

MASK = 'mask'  # entries held at exactly 0
CHANNELS = 'channels'  # what is left of a weight
FACTORS = 'factors'  # a product of kernels
STRUCTURE = 'structure'  # tiles or filters made from fewer numbers
GRID = 'grid'  # few bits per number
SIGNS = 'signs'  # one bit per number
CODEBOOK = 'codebook'  # indices into stored values
INPUT_SIGNS = 'input signs'  # a weight that meets signs of its inputs
SIGNAL = 'signal'  # changes inputs or gradients, not the weight
ARRAYS = 'arrays'  # of methods that compute on plain arrays

VALUES = (GRID, SIGNS, CODEBOOK)  # what the numbers of a weight are
KINDS = (
  *(MASK, CHANNELS, FACTORS, STRUCTURE, INPUT_SIGNS, SIGNAL, ''),
  *VALUES,
)

_ONE = (
  "Give each weight one {} method; `only('path', ...)` tells them apart.".format
)
_FIRST = 'Put it first: "{where}(...) >> ...".'
_ONE_GRID = ('weights that are not quantized yet', _ONE('quantization'))
_ARRAYS = ('plain arrays', _FIRST)

# Kind of a method -> kinds of nodes that it cannot follow -> what it expects,
# and what to do.
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
    (MASK, FACTORS, STRUCTURE, *VALUES), ('whole weights', _FIRST)
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
  """Check that a method may follow those that made the nodes of a tree.

  Args:
    where: The name of the method, for the error.
    kind: What it makes of weights, a key of `REFUSED`; others are never
      refused.
    params: A tree of arrays and nodes.

  Raises:
    ValueError: If it cannot follow one of them.
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
