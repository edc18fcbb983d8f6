"""JAX primitives whose operands enter an operator as they are, and settings."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tsukiji.graph.operators import BINARY, REDUCTIONS, UNARY, WINDOWS

Attrs = tuple[str, dict[str, Any]]


def _named(op: str, *keys: str, **renamed: str) -> Callable[[Any], Attrs]:
  """Return a rule that keeps some settings of a primitive."""
  names = dict.fromkeys(keys) | renamed

  def rule(eqn: Any) -> Attrs:
    found = {key: plain(eqn.params[old or key]) for key, old in names.items()}
    return op, found

  return rule


def plain(x: Any) -> Any:
  """Return settings of a primitive as numbers and tuples."""
  if isinstance(x, Sequence) and not isinstance(x, str):
    return tuple(map(plain, x))
  return int(x) if isinstance(x, np.integer) else x


def _typed(eqn: Any) -> dict[str, Any]:
  """Return the type and precision of a product, where they are not usual."""
  found: dict[str, Any] = {}
  dtype = eqn.outvars[0].aval.dtype
  if dtype != eqn.invars[0].aval.dtype:
    found['dtype'] = dtype.name
  precision = eqn.params.get('precision')
  if precision is not None:
    both = precision if isinstance(precision, tuple) else (precision,)
    found['precision'] = str(
      both[0].name if hasattr(both[0], 'name') else both[0]
    ).lower()
  return found


def _dot(eqn: Any) -> Attrs:
  dims = plain(eqn.params['dimension_numbers'])
  return 'dot', {'dims': dims, **_typed(eqn)}


def _conv(eqn: Any) -> Attrs:
  p = eqn.params
  if p['batch_group_count'] > 1:
    raise ValueError(
      'graph: expected a convolution of a network, got groups of the batch. '
      'Capture the function without its gradient.'
    )
  dilation = plain((p['lhs_dilation'], p['rhs_dilation']))
  return 'conv', {
    'dims': plain(tuple(p['dimension_numbers'])),
    'strides': plain(p['window_strides']),
    'padding': plain(p['padding']),
    'dilation': dilation,
    **_typed(eqn),
  }


def _window(eqn: Any) -> Attrs:
  p = eqn.params
  return eqn.primitive.name, {
    'sizes': plain(p['window_dimensions']),
    'strides': plain(p['window_strides']),
    'padding': plain(p['padding']),
    'dilation': plain((p['base_dilation'], p['window_dilation'])),
  }


def _argument(eqn: Any) -> Attrs:
  (axis,) = eqn.params['axes']
  dtype = np.dtype(eqn.params['index_dtype']).name
  return eqn.primitive.name, {'axis': int(axis), 'dtype': dtype}


def _slice(eqn: Any) -> Attrs:
  p, before = eqn.params, eqn.invars[0].aval.shape
  ends = p['limit_indices']
  strides = p['strides'] or (1,) * len(before)
  return 'slice', {
    'begin': plain(p['start_indices']),
    'end': tuple(
      None if e == n else int(e) for e, n in zip(ends, before, strict=True)
    ),
    'strides': plain(strides),
  }


def _iota(eqn: Any) -> Attrs:
  p = eqn.params
  dtype = np.dtype(p['dtype']).name
  shape = plain(p['shape'])
  return 'iota', {'shape': shape, 'axis': p['dimension'], 'dtype': dtype}


def _cast(eqn: Any) -> Attrs:
  return 'cast', {'dtype': np.dtype(eqn.params['new_dtype']).name}


def _bitcast(eqn: Any) -> Attrs:
  return 'bitcast', {'dtype': np.dtype(eqn.params['new_dtype']).name}


def _round(eqn: Any) -> Attrs:
  even = eqn.params['rounding_method'] == jax.lax.RoundingMethod.TO_NEAREST_EVEN
  return 'round', {'even': bool(even)}


DIRECT: dict[str, Callable[[Any], Attrs]] = {
  **{name: _named(name, 'axes') for name in REDUCTIONS},
  **dict.fromkeys(WINDOWS, _window),
  **dict.fromkeys(('argmax', 'argmin'), _argument),
  **{name: _named(name, 'axis', 'reverse') for name in ('cumsum', 'cumprod')},
  'concatenate': _named('concat', axis='dimension'),
  'conv_general_dilated': _conv,
  'dot_general': _dot,
  'dynamic_slice': _named('dynamic_slice', sizes='slice_sizes'),
  'iota': _iota,
  'pad': _named('pad', widths='padding_config'),
  'rev': _named('rev', axes='dimensions'),
  'slice': _slice,
}
ELEMENTWISE: dict[str, Callable[[Any], Attrs]] = {
  **{name: _named(name) for name in (*UNARY, *BINARY)},
  'bitcast_convert_type': _bitcast,
  'convert_element_type': _cast,
  'integer_pow': _named('ipow', power='y'),
  'round': _round,
  'select_n': _named('select'),
  'square': lambda eqn: ('ipow', {'power': 2}),
}
