"""Trees of arrays and nodes as JSON and back.

In JSON an array is `'f4 3 3 1 8'` (dtype and shape), and a node is a dictionary
with its kind under the key ''. Reading imports nothing: kinds are looked up in
`NODES` and among the classes that the process has declared.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from compress import tree
from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from compress.channels.sliced import Sliced
from compress.dataflow.arranged import Arranged
from compress.lowrank.factors import LowRank, Separable, Tucker
from compress.lowrank.plus_sparse import Summed
from compress.node import CLASS, Narrowed
from compress.prune.masked import Masked
from compress.quantize.batch_norm import Folded
from compress.quantize.half import Half
from compress.quantize.integer_codes import Inputs, Quantized, Shifted
from compress.share.codebook import Hashed, Products, Shared
from compress.structured.matrices import Structured
from compress.structured.tied_filters import Transferred
from compress.tree import Compressed
from tsukiji.deploy.tsk import header
from tsukiji.deploy.tsk.coding import DTYPES, dtype_name
from tsukiji.deploy.tsk.header import Slot, check, damaged

# The node kinds in a file, in addition to dictionaries, tuples and arrays.
NODES: dict[str, type] = {
  'Arranged': Arranged,
  'Binarized': Binarized,
  'Folded': Folded,
  'Half': Half,
  'Hashed': Hashed,
  'Inputs': Inputs,
  'LowRank': LowRank,
  'Masked': Masked,
  'Narrowed': Narrowed,
  'Products': Products,
  'Quantized': Quantized,
  'Separable': Separable,
  'Shared': Shared,
  'Shifted': Shifted,
  'Signed': Signed,
  'Sliced': Sliced,
  'Structured': Structured,
  'Summed': Summed,
  'Transferred': Transferred,
  'Tucker': Tucker,
}
OURS = 'compress.'  # of these modules, only the table is stored
STATIC_LIMIT = 2**24  # magnitude of an integer in a node
PATH_LIMIT = 1024  # characters


def name_of(kind: type) -> str | None:
  """Return the name of a class of nodes in files, None if they hold none."""
  if NODES.get(kind.__name__) is kind:
    return kind.__name__
  name = f'{kind.__module__}:{kind.__qualname__}'
  return name if _declared().get(name) is kind else None


def kind_of(name: str) -> type | None:
  """Return the class of nodes of a name in a file, None if there is none."""
  return NODES.get(name) or _declared().get(name)


def modules() -> list[str]:
  """Return the imported modules of other packages whose nodes files hold."""
  found = {kind.__module__ for kind in _declared().values()}
  return sorted(found - {'__main__'})


def _declared() -> dict[str, type]:
  """Return the classes of other packages that say their `kind`, by name."""
  found: dict[str, type] = {}
  todo = [Compressed]
  while todo:
    kind = todo.pop()
    todo += kind.__subclasses__()
    if kind.kind and not kind.__module__.startswith(OURS):
      found[f'{kind.__module__}:{kind.__qualname__}'] = kind
  return found


def to_json(path: str, x: Any, arrays: list[np.ndarray]) -> Any:
  """Return a tree as JSON, and append its arrays in order.

  Args:
    path: Path of the tree, for error messages.
    x: The tree.
    arrays: The list to which arrays are appended.

  Returns:
    The tree as JSON types.

  Raises:
    ValueError: If something in the tree cannot be stored.
  """
  if x is None:
    return None
  if type(x) is tuple:
    items = enumerate(x)
    return [to_json(join(path, i), item, arrays) for i, item in items]
  if type(x) is dict:
    if not all(isinstance(key, str) and key for key in x):
      raise unfit(path, 'names as keys', list(x))
    return {k: to_json(join(path, k), x[k], arrays) for k in sorted(x)}
  kind = name_of(type(x))
  if kind is None:
    return _array(path, x, arrays)
  plain: dict[str, Any] = {'': kind}
  for name, varies in _fields(type(x)):
    value, here = getattr(x, name), join(path, name)
    plain[name] = (
      to_json(here, value, arrays) if varies else _static(here, value)
    )
  return plain


def _array(path: str, x: Any, arrays: list[np.ndarray]) -> str:
  dtype = None if tree.is_node(x) else getattr(x, 'dtype', None)
  if not isinstance(dtype, np.dtype) or dtype_name(dtype) not in DTYPES:
    got = f'{type(x).__name__} {dtype or ""}'.strip()
    dtypes = ', '.join(map(str, DTYPES.values()))
    raise unfit(path, f'arrays of {dtypes}, or {", ".join(NODES)}', got)
  arrays.append(np.asarray(x))
  return ' '.join((dtype_name(dtype), *map(str, x.shape)))


def from_json(path: str, x: Any, leaf: Callable[[Slot], Any]) -> Any:
  """Return the tree that JSON describes.

  Args:
    path: Path of the tree, for error messages.
    x: The result of `json.loads`.
    leaf: Slot -> leaf of the tree.

  Returns:
    The tree.

  Raises:
    ValueError: If the JSON is not a tree.
  """
  if x is None:
    return None
  check(len(path) <= PATH_LIMIT, f'a path of {PATH_LIMIT} characters', path)
  if type(x) is str:
    return leaf(header.slot(path, x))
  if type(x) is list:
    items = enumerate(x)
    return tuple(from_json(join(path, i), item, leaf) for i, item in items)
  check(type(x) is dict, f'a dictionary at {path}', x)
  short = len(path) + max(map(len, x), default=0) < PATH_LIMIT
  check(short, f'paths of at most {PATH_LIMIT} characters', path)
  if '' not in x:
    return {k: from_json(join(path, k), x[k], leaf) for k in sorted(x)}
  kind = _expect_kind(path, x[''])
  names = sorted(['', *(name for name, _ in _fields(kind))])
  check(sorted(x) == names, f'fields {names} at {path}', sorted(x))
  values = {}
  for name, varies in _fields(kind):
    here = join(path, name)
    values[name] = (
      from_json(here, x[name], leaf) if varies else _static(here, x[name])
    )
  return kind(**values)


def _expect_kind(path: str, name: Any) -> type:
  """Return the class of nodes of a name; raise if the process has none."""
  kind = kind_of(name) if type(name) is str else None
  if kind is not None:
    return kind
  if type(name) is str and ':' in name:
    raise ValueError(
      f'artefact at {path}: expected a class of nodes that is imported, got '
      f'{name[:80]!r}. Import its module before loading, if you trust it.'
    )
  raise damaged(f'a node at {path} of {", ".join(NODES)}', name)


def _fields(kind: type) -> list[tuple[str, bool]]:
  """Return the fields of a node, and whether each holds arrays."""
  return [
    (field.name, field.metadata.get('pytree_node', True))
    for field in dataclasses.fields(kind)
    if field.name != CLASS
  ]


def _static(path: str, x: Any) -> Any:
  """Return a field without arrays, checked on writing and reading."""
  if isinstance(x, list | tuple):
    return tuple(_static(path, item) for item in x)
  right = x is None or type(x) in (bool, float, str)
  if not (right or (type(x) is int and abs(x) <= STATIC_LIMIT)):
    raise unfit(path, f'a text or a number up to {STATIC_LIMIT}', x)
  return x


def join(path: str, name: str | int) -> str:
  """Return the path of an item."""
  return f'{path}/{name}' if path else str(name)


def unfit(path: str, expected: str, got: Any) -> ValueError:
  """Return the error of a value that cannot be stored."""
  return ValueError(
    f'pack at {path or "the top"}: expected {expected}, got '
    f'{repr(got)[:80]}. Convert it; a node of your own needs a `kind`.'
  )
