"""Recipes: methods written as one line of text, for configs and reports.

`prune.weights(0.9, scope="global") >> quantize.int8()` is read as a Python
expression over the table below. Only names of the table, calls, literals and
`>>` are understood; nothing is executed.
"""

import ast
import difflib
import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

from compress import (
  binary,
  distill,
  learning_compression,
  lowrank,
  method,
  prune,
  quantize,
  regularize,
  schedule,
  share,
  structured,
)
from compress.method import Method


def _exported(*families: types.ModuleType) -> dict[str, Callable[..., Any]]:
  """Return what families export, as `'prune.weights'`."""
  return {
    f'{family.__name__.rpartition(".")[2]}.{name}': getattr(family, name)
    for family in families
    for name in family.__all__
  }


# A method that its family exports is a name in recipes.
TABLE: dict[str, Callable[..., Any]] = {
  'admm': learning_compression.admm,
  'at_once': schedule.at_once,
  'cubic': schedule.cubic,
  'lc': learning_compression.lc,
  'linear': schedule.linear,
  'only': method.only,
  'steps': schedule.steps,
  **_exported(
    binary, distill, lowrank, prune, quantize, regularize, share, structured
  ),
}

# Names of earlier versions, read with a warning.
RENAMED = {
  'distill.correlation': 'distill.dist',
  'distill.decoupled': 'distill.dkd',
  'distill.hint': 'distill.fitnet',
  'distill.logits': 'distill.kd',
  'distill.relations': 'distill.rkd',
  'distill.squared': 'distill.mse',
  'learn.admm': 'admm',
  'learn.lc': 'lc',
  'lowrank.learned': 'lowrank.learned_rank',
  'prune.pattern': 'prune.n_m',
  'prune.ticket': 'prune.lottery_ticket',
  'quantize.adaptive': 'quantize.adaround',
  'quantize.correct': 'quantize.bias_correction',
  'quantize.equalise': 'quantize.cross_layer_equalization',
  'quantize.folded': 'quantize.fold_batch_norm',
  'quantize.grid': 'quantize.uniform',
  'quantize.late': 'quantize.delay',
  'regularise.group_lasso': 'regularize.group_lasso',
  'regularise.l1': 'regularize.l1',
  'regularise.l2': 'regularize.l2',
  'regularise.rate': 'regularize.entropy',
  'regularise.shrink': 'regularize.shrink',
  'transfer.crelu': 'structured.crelu',
  'transfer.crop': 'structured.crop',
  'transfer.multi_bias': 'structured.multi_bias',
  'transfer.rotate': 'structured.rotate',
}

NAME = re.compile(r'\{([A-Za-z_]\w*)\}')  # in a recipe, of a part


def parse(text: str) -> Method:
  """Return the method that a line of text describes.

  Args:
    text: An expression over `TABLE`; `a >> b` chains; '' is the unit.

  Returns:
    The method.

  Raises:
    ValueError: If the text is no such expression, a name is not in the table
      (the message gives the nearest), or a method refuses its arguments.

  >>> parse('prune.weights(0.9) >> quantize.int8()')
  Method(init=..., update=..., loss=..., requires=frozenset())
  """
  if not text.strip():
    return method.chain()
  try:
    return _method(ast.parse(text.strip(), mode='eval').body, text)
  except (SyntaxError, UnicodeError, RecursionError, MemoryError) as e:
    raise ValueError(
      f'recipe: expected an expression as "prune.weights(0.9) >> '
      f'quantize.int8()", got {text!r}. {getattr(e, "msg", e)}.'
    ) from None


def filled(text: str, parts: Mapping[str, Any]) -> str:
  """Return a recipe with parts in the place of its `{names}`.

  Args:
    text: A recipe; methods of it that are empty in the end are left out.
    parts: By name, numbers and texts, which may hold names themselves.

  Returns:
    The recipe.

  Raises:
    ValueError: If a name has no value, or parts hold each other.

  >>> parts = {'cut': 'prune.weights({share})', 'share': 0.9, 'grid': ''}
  >>> filled('{cut} >> {grid}', parts)
  'prune.weights(0.9)'
  """
  if not NAME.search(text):
    return text
  shown = {
    name: f'{value:.4g}' if isinstance(value, float) else str(value)
    for name, value in parts.items()
  }

  def value(found: re.Match[str]) -> str:
    if found[1] not in shown:
      raise ValueError(
        f'recipe {text!r}: expected names among {", ".join(shown) or "none"} '
        f'in braces, got {found[1]!r}. Give it a value.'
      )
    return shown[found[1]]

  whole = text
  for _ in range(len(shown) + 1):
    whole = NAME.sub(value, whole)
  if NAME.search(whole):
    raise ValueError(
      f'recipe {text!r}: expected parts that end, got {whole!r}.'
    )
  return ' >> '.join(part for x in whole.split('>>') if (part := x.strip()))


def _method(node: ast.AST, text: str) -> Method:
  made = _evaluate(node, text)
  if not isinstance(made, Method):
    raise ValueError(
      f'recipe {text!r}: expected a method, got {ast.unparse(node)!r}.'
    )
  return made


def _evaluate(node: ast.AST, text: str) -> Any:
  match node:
    case ast.BinOp(op=ast.RShift()):
      return method.chain(_method(node.left, text), _method(node.right, text))
    case ast.Call():
      args = [_evaluate(a, text) for a in node.args]
      kwargs = {k.arg: _evaluate(k.value, text) for k in node.keywords}
      return _call(ast.unparse(node.func), args, kwargs, text)
  try:
    return ast.literal_eval(node)
  except (TypeError, ValueError):
    raise ValueError(
      f'recipe {text!r}: expected a call or a literal, got '
      f'{ast.unparse(node)!r}. Methods are called, as in "quantize.int8()".'
    ) from None


def _call(name: str, args: list[Any], kwargs: Any, text: str) -> Any:
  if name not in TABLE:
    near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.0)[0]
    raise ValueError(
      f'recipe {text!r}: expected one of {", ".join(TABLE)}, got {name!r}. '
      f'Nearest: {near!r}.'
    )
  make = TABLE[name]
  signature = inspect.signature(make)
  try:
    signature.bind(*args, **kwargs)
  except TypeError as e:
    raise ValueError(
      f'recipe {text!r}: expected {name}{signature}. {e}.'
    ) from None
  try:
    return make(*args, **kwargs)
  except (AttributeError, TypeError) as e:
    raise ValueError(
      f'recipe {text!r}: {name} cannot take these arguments. {e}.'
    ) from None
