"""C formulas of operators on single numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from tsukiji.deploy.c.plan.values import FLOAT
from tsukiji.deploy.c.tables import literal

SHRUNK = 'shrunk'  # a rescaling by less than 1
# By operator: a format of the operands; of floats, then of integers.
FLOATS: Mapping[str, str] = {
  'abs': 'fabsf({0})',
  'atan': 'atanf({0})',
  'ceil': 'ceilf({0})',
  'cos': 'cosf({0})',
  'cosh': 'coshf({0})',
  'div': '{0} / {1}',
  'erf': 'erff({0})',
  'erfc': 'erfcf({0})',
  'exp': 'expf({0})',
  'exp2': 'exp2f({0})',
  'expm1': 'expm1f({0})',
  'floor': 'floorf({0})',
  'is_finite': '{0} - {0} == 0.0f',
  'log': 'logf({0})',
  'log1p': 'log1pf({0})',
  'logistic': '1.0f / (1.0f + expf(-{0}))',
  'neg': '-{0}',
  'pow': 'powf({0}, {1})',
  'rem': 'fmodf({0}, {1})',
  'rsqrt': '1.0f / sqrtf({0})',
  'sign': '(float)(({0} > 0.0f) - ({0} < 0.0f))',
  'sin': 'sinf({0})',
  'sinh': 'sinhf({0})',
  'sqrt': 'sqrtf({0})',
  'tan': 'tanf({0})',
  'tanh': 'tanhf({0})',
}
INTEGERS: Mapping[str, str] = {
  'abs': '{0} < 0 ? -{0} : {0}',
  'and': '{0} & {1}',
  'div': '{0} / {1}',
  'is_finite': '1',
  'neg': '-{0}',
  'not': '~{0}',
  'or': '{0} | {1}',
  'rem': '{0} % {1}',
  'shift_left': '{0} << {1}',
  'shift_right_arithmetic': '{0} >> {1}',
  'sign': '({0} > 0) - ({0} < 0)',
  'xor': '{0} ^ {1}',
}
BOTH: Mapping[str, str] = {
  'add': '{0} + {1}',
  'eq': '{0} == {1}',
  'ge': '{0} >= {1}',
  'gt': '{0} > {1}',
  'le': '{0} <= {1}',
  'lt': '{0} < {1}',
  'max': '{0} > {1} ? {0} : {1}',
  'min': '{0} < {1} ? {0} : {1}',
  'mul': '{0} * {1}',
  'ne': '{0} != {1}',
  'sub': '{0} - {1}',
}
BOOLS: Mapping[str, str] = {'not': '!{0}'}
COSTLY = {
  *('atan', 'cos', 'cosh', 'div', 'erf', 'erfc', 'exp', 'exp2', 'expm1'),
  *('log', 'log1p', 'logistic', 'pow', 'rem', 'rsqrt', 'sin', 'sinh'),
  *('sqrt', 'tan', 'tanh'),
}


def _cast(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  if attrs['dtype'] == 'bool':
    return '{0} != 0'
  return '{0}' if kind == before else f'({kind}){{0}}'


def _round(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  return 'rintf({0})' if attrs['even'] else 'roundf({0})'


def _power(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  power = attrs['power']
  text = ' * '.join(['{0}'] * abs(power)) or ('1.0f' if kind == FLOAT else '1')
  return text if power >= 0 else f'1.0f / ({text})'


def _select(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  return '{0} ? {2} : {1}'


def _rounded(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  """Format the codes of a grid minus its zero point."""
  low, high = -attrs['zero'], attrs['top'] - attrs['zero']
  step = literal(attrs['scale'], FLOAT)
  return f'rounded({{0}}, {step}, {low}.0f, {high}.0f)'


def _rescaled(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  return f'rescaled({{0}}, {{1}}, {{2}}, {attrs["low"]}, {attrs["high"]})'


def _shrunk(kind: str, before: str, attrs: Mapping[str, Any]) -> str:
  return f'shrunk({{0}}, {{1}}, {{2}}, {attrs["low"]}, {attrs["high"]})'


SPECIAL: Mapping[str, Callable[[str, str, Mapping[str, Any]], str]] = {
  'cast': _cast,
  'ipow': _power,
  'rescaled': _rescaled,
  'round': _round,
  'rounded': _rounded,
  'select': _select,
  SHRUNK: _shrunk,
}


def formula(
  op: str, kind: str, before: str, attrs: Mapping[str, Any]
) -> str | None:
  """Return the format of an operator, None for one without a formula.

  Args:
    op: Its name.
    kind: Type of the result.
    before: Type of its first operand.
    attrs: Its settings.

  >>> formula('max', 'float', 'float', {}).format('a', 'b')
  'a > b ? a : b'
  """
  if op in SPECIAL:
    return SPECIAL[op](kind, before, attrs)
  if op == 'not' and attrs.get('is_bool'):
    return BOOLS[op]
  own = FLOATS if before == FLOAT else INTEGERS
  return own.get(op) or BOTH.get(op)


ELEMENTWISE = {*FLOATS, *INTEGERS, *BOTH, *SPECIAL}
