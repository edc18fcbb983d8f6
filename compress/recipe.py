"""Recipes: methods written as one line of text, for configs and reports.

`prune.weights(0.9, scope="global") >> quantize.int8()` is read as a Python
expression over the table below. Only names of the table, calls, literals and
`>>` are understood; nothing is executed.
"""

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from compress import (
  auto,
  binary,
  binary_inputs,
  distill,
  equalise,
  filters,
  folded,
  gates,
  half,
  hints,
  learn,
  learned,
  loss_aware,
  lowrank,
  method,
  mixed,
  neurons,
  passing,
  pattern,
  prune,
  quantize,
  rate,
  regress,
  regrow,
  regularise,
  relations,
  residual,
  rewind,
  rounding,
  schedule,
  second_order,
  select,
  share,
  spectrum,
  squash,
  structure,
  structured,
  transfer,
  variational,
)
from compress.method import Method

TABLE: dict[str, Callable[..., Any]] = {
  'at_once': schedule.at_once,
  'binary.bnn': binary.bnn,
  'binary.inputs': binary_inputs.inputs,
  'binary.loss_aware': loss_aware.loss_aware,
  'binary.react': binary.react,
  'binary.weights': binary.weights,
  'binary.xnor': binary.xnor,
  'cubic': schedule.cubic,
  'distill.attention': hints.attention,
  'distill.bounded': regress.bounded,
  'distill.correlation': distill.correlation,
  'distill.decoupled': distill.decoupled,
  'distill.hint': hints.hint,
  'distill.logits': distill.logits,
  'distill.probe': hints.probe,
  'distill.relations': relations.relations,
  'distill.squared': distill.squared,
  'distill.trusted': regress.trusted,
  'learn.admm': learn.admm,
  'learn.lc': learn.lc,
  'linear': schedule.linear,
  'lowrank.auto': spectrum.auto,
  'lowrank.cp': lowrank.cp,
  'lowrank.learned': select.learned,
  'lowrank.plus_sparse': residual.plus_sparse,
  'lowrank.svd': lowrank.svd,
  'lowrank.tucker': lowrank.tucker,
  'only': method.only,
  'prune.auto': auto.auto,
  'prune.blocks': pattern.blocks,
  'prune.filters': filters.filters,
  'prune.l0': gates.l0,
  'prune.movement': regrow.movement,
  'prune.neurons': neurons.neurons,
  'prune.obs': second_order.obs,
  'prune.pattern': pattern.pattern,
  'prune.rigl': regrow.rigl,
  'prune.threshold': prune.threshold,
  'prune.ticket': rewind.ticket,
  'prune.variational': variational.variational,
  'prune.weights': prune.weights,
  'quantize.adaptive': rounding.adaptive,
  'quantize.auto': mixed.auto,
  'quantize.correct': equalise.correct,
  'quantize.dorefa': squash.dorefa,
  'quantize.equalise': equalise.equalise,
  'quantize.folded': folded.folded,
  'quantize.gptq': rounding.gptq,
  'quantize.gradients': passing.gradients,
  'quantize.grid': quantize.grid,
  'quantize.half': half.half,
  'quantize.int8': quantize.int8,
  'quantize.late': passing.late,
  'quantize.lsq': learned.lsq,
  'quantize.pact': learned.pact,
  'quantize.ternary': quantize.ternary,
  'regularise.group_lasso': regularise.group_lasso,
  'regularise.l1': regularise.l1,
  'regularise.l2': regularise.l2,
  'regularise.rate': rate.rate,
  'regularise.shrink': regularise.shrink,
  'share.hashed': share.hashed,
  'share.kmeans': share.kmeans,
  'share.product': share.product,
  'steps': schedule.steps,
  'structured.auto': structure.auto,
  'structured.butterfly': structured.butterfly,
  'structured.circulant': structured.circulant,
  'structured.fastfood': structured.fastfood,
  'structured.toeplitz': structured.toeplitz,
  'transfer.crelu': transfer.crelu,
  'transfer.crop': transfer.crop,
  'transfer.multi_bias': transfer.multi_bias,
  'transfer.rotate': transfer.rotate,
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
  Method(init=..., update=..., loss=..., asks=frozenset())
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
