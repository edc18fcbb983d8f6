"""Recipes: methods written as one line of text, for configs and reports.

`prune.weights(0.9, scope="global") >> quantize.int8()` is read as a Python
expression over the table below. Only names of the table, calls, literals and
`>>` are understood, and `package.module:function` for methods from elsewhere;
nothing else is executed.
"""

import ast
import importlib
import inspect
import re
import types
import typing
import warnings
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
from compress.errors import nearest, shorten
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

# Names of earlier versions, read with a warning that gives the new one.
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

# Arguments of earlier versions: (new name of the method, old): new.
RENAMED_ARGUMENTS: dict[tuple[str, str], str] = {
  ('admm', 'settle'): 'finetune_at',
  ('distill.attention', 'of'): 'teacher_layer',
  ('distill.dkd', 'others'): 'non_target',
  ('distill.fitnet', 'of'): 'teacher_layer',
  ('distill.kd', 'cool'): 'temperature_schedule',
  ('distill.rkd', 'of'): 'teacher_layer',
  ('lc', 'settle'): 'finetune_at',
  ('lowrank.learned_rank', 'settle'): 'finetune_at',
  ('prune.auto', 'damage'): 'sensitivity',
  ('prune.l0', 'drop'): 'drop_rate',
  ('prune.l0', 'settle'): 'freeze_at',
  ('prune.lottery_ticket', 'at'): 'rewind_at',
  ('prune.variational', 'settle'): 'freeze_at',
  ('quantize.auto', 'damage'): 'sensitivity',
  ('quantize.uniform', 'settle'): 'freeze_at',
  ('lowrank.auto', 'damage'): 'sensitivity',
  ('structured.auto', 'damage'): 'sensitivity',
}
# Values of earlier versions: (method, new name of the argument): {old: new}.
RENAMED_VALUES: dict[tuple[str, str], dict[Any, Any]] = {
  ('prune.filters', 'score'): {'median': 'fpgm', 'norm': 'bn_scale'},
}

NAME = re.compile(r'\{([A-Za-z_]\w*)\}')  # a placeholder in a recipe

# `a:b` is not an expression in Python: it is read as `a._from_.b`.
FROM = '_from_'
OUTSIDE = re.compile(
  r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
  r'|(?<![\w.])([A-Za-z_][\w.]*+):(?=[A-Za-z_])'
)


def parse(text: str) -> Method:
  """Return the method that a line of text describes.

  Args:
    text: An expression over `TABLE`; `a >> b` chains; '' is the unit. A name
      `package.module:function` is imported. A function that is called must be
      annotated `-> Method`; one that is an argument, as in
      `prune.weights(0.9, score=package.module:function)`, need not be.

  Returns:
    The method.

  Raises:
    ValueError: If the text is not such an expression, a name is not in the
      table, or a method refuses its arguments.

  Warns:
    FutureWarning: If a name, argument or value is that of an earlier version.

  >>> parse('prune.weights(0.9) >> quantize.int8()')
  Method(init=..., update=..., loss=..., requires=frozenset())
  """
  if not text.strip():
    return method.chain()
  code = OUTSIDE.sub(lambda m: m[1] or f'{m[2]}.{FROM}.', text.strip())
  try:
    return _method(ast.parse(code, mode='eval').body, text)
  except (SyntaxError, UnicodeError, RecursionError, MemoryError) as e:
    raise ValueError(
      f'{_where(text)}: expected an expression as "prune.weights(0.9) >> '
      f'quantize.int8()". {shorten(str(getattr(e, "msg", e)), 100)}.'
    ) from None


def _where(text: str) -> str:
  return f'recipe {shorten(text, 80)!r}'


def filled(text: str, parts: Mapping[str, Any]) -> str:
  """Return a recipe with its placeholders `{name}` replaced.

  Args:
    text: A recipe; methods that are empty after replacement are left out.
    parts: Numbers and texts by name; texts may contain placeholders.

  Returns:
    The recipe.

  Raises:
    ValueError: If a name has no value, or parts contain each other.

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
      names = shorten(', '.join(shown), 80) or 'none'
      raise ValueError(
        f'{_where(text)}: expected names among {names} in braces, got '
        f'{shorten(found[1], 40)!r}. Give it a value.'
      )
    return shown[found[1]]

  done = text
  for _ in range(len(shown) + 1):
    done = NAME.sub(value, done)
  if NAME.search(done):
    raise ValueError(
      f'{_where(text)}: expected parts that do not contain each other, got '
      f'{shorten(done, 80)!r}.'
    )
  return ' >> '.join(part for x in done.split('>>') if (part := x.strip()))


def _method(node: ast.AST, text: str) -> Method:
  made = _evaluate(node, text)
  if not isinstance(made, Method):
    raise ValueError(
      f'{_where(text)}: expected a method, got '
      f'{shorten(ast.unparse(node), 80)!r}.'
    )
  return made


def _evaluate(node: ast.AST, text: str) -> Any:
  match node:
    case ast.BinOp(op=ast.RShift()):
      return method.chain(_method(node.left, text), _method(node.right, text))
    case ast.Call():
      args = [_evaluate(a, text) for a in node.args]
      kwargs = {str(k.arg): _evaluate(k.value, text) for k in node.keywords}
      return _call(_name(node.func), args, kwargs, text)
    case ast.Attribute() if ':' in (name := _name(node)):
      return _imported(name, text)
  try:
    return ast.literal_eval(node)
  except (TypeError, ValueError):
    raise ValueError(
      f'{_where(text)}: expected a call or a literal, got '
      f'{shorten(ast.unparse(node), 80)!r}. Methods are called, as in '
      '"quantize.int8()".'
    ) from None


def _name(node: ast.AST) -> str:
  return ast.unparse(node).replace(f'.{FROM}.', ':')


def _call(name: str, args: list[Any], kwargs: dict[str, Any], text: str) -> Any:
  name = _current(name, RENAMED.get(name), 'name', text)
  make = _made_by(name, text)
  kwargs = {
    _current(
      key, RENAMED_ARGUMENTS.get((name, key)), f'{name} argument', text
    ): x
    for key, x in kwargs.items()
  }
  signature = inspect.signature(make)
  try:
    bound = signature.bind(*args, **kwargs)
  except TypeError as e:
    names = shorten(', '.join(signature.parameters), 80)
    raise ValueError(
      f'{_where(text)}: expected {name}({names}). {shorten(str(e), 100)}.'
    ) from None
  for key, x in bound.arguments.items():
    known = RENAMED_VALUES.get((name, key), {})
    new = known.get(x) if isinstance(x, str) else None
    bound.arguments[key] = _current(x, new, f'{name} {key}', text)
  try:
    return make(*bound.args, **bound.kwargs)
  except (AttributeError, TypeError) as e:
    raise ValueError(
      f'{_where(text)}: {name} cannot take these arguments. '
      f'{shorten(str(e), 100)}.'
    ) from None


def _current(old: Any, new: Any, what: str, text: str) -> Any:
  """Return the new name with a warning, or the old one if it is current."""
  if new is None:
    return old
  warnings.warn(
    f'{_where(text)}: the {what} {old!r} is now {new!r}. Write {new!r}.',
    FutureWarning,
    stacklevel=2,
  )
  return new


def _made_by(name: str, text: str) -> Callable[..., Any]:
  """Return the function of a name in the table or of another package."""
  if name in TABLE:
    return TABLE[name]
  if ':' in name:
    make = _imported(name, text)
    try:
      given = typing.get_type_hints(make).get('return')
    except (TypeError, NameError):
      given = None
    if given is not Method:
      raise ValueError(
        f'{_where(text)}: expected a function annotated "-> Method", got '
        f'{shorten(name, 60)!r}. Annotate it with compress.Method.'
      )
    return typing.cast(Callable[..., Any], make)
  short = shorten(name, 60)
  near = nearest(name, [*TABLE, *RENAMED], 5)
  found = [*dict.fromkeys(RENAMED.get(x, x) for x in near)]
  raise ValueError(
    f'{_where(text)}: expected a name of the table, got {short!r}. Nearest: '
    f'{", ".join(map(repr, found[:3]))}.'
  )


def _imported(name: str, text: str) -> Any:
  """Import `package.module:function`."""
  module, _, attribute = name.partition(':')
  try:
    return getattr(importlib.import_module(module), attribute)
  except Exception as e:  # whatever a module may raise while it is imported
    why = shorten(f'{type(e).__name__}: {e}', 80)
    raise ValueError(
      f'{_where(text)}: expected a function that can be imported, got '
      f'{shorten(name, 60)!r}. {why}.'
    ) from e
