"""Applying a network whose weights are compressed, whatever the network is.

Input grids are fields of the weight's node and are applied through the public
`flax.linen.intercept_methods`, and so are factors of a layer's output: any Flax
module works unchanged.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from compress import tree
from compress.tree import Array, Features, Params, Stats

Out = TypeVar('Out')
See: TypeAlias = Callable[[Any, nn.Module, Array], Any]


def extent(before: Array | None, module: nn.Module, x: Array) -> Array:
  """Return `[min, max]` of the inputs of a layer so far: the usual `See`."""
  del module
  new = jnp.stack([jnp.min(x), jnp.max(x)])
  if before is None:
    return new
  return jnp.stack(
    [
      jnp.minimum(before[0], new[0]),
      jnp.maximum(before[1], new[1]),
    ]
  )


def apply(
  run: Callable[[], Out], params: Params, see: See = extent
) -> tuple[Out, Stats]:
  """Run a network with the input of each layer transformed by its weight.

  And with its output before the bias multiplied by what
  `Compressed.scale_output` returns.

  Args:
    run: Applies Flax modules to *decoded* parameters and returns anything.
    params: The tree of nodes; its paths are the module paths.
    see: What it returned for the same weight before (None at first), the
      module, and the input before it is transformed -> any tree.

  Returns:
    What `run` returned, and what `see` did, by path: `[min, max]`.

  Raises:
    ValueError: If the input of a weight that transforms it was not observed:
      no Flax module at its path was called, with its input as the first
      argument, outside compiled functions.

  Example:
    >>> import jax
    >>> dense = nn.Dense(2)
    >>> x = jnp.arange(6.0).reshape(2, 3)
    >>> variables = dense.init(jax.random.key(0), x)
    >>> y, stats = apply(lambda: dense.apply(variables, x), variables['params'])
    >>> stats['kernel'].tolist()
    [0.0, 5.0]
  """
  weights = _by_module(params)
  stats: Stats = {}

  def intercept(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    module = '/'.join(context.module.path)
    if context.method_name != '__call__' or module not in weights or not args:
      return call(*args, **kwargs)
    path, weight = weights[module]
    x, *rest = args
    stats[path] = see(stats.get(path), context.module, x)
    if not tree.is_node(weight):
      return call(*args, **kwargs)
    y = call(weight.transform_input(x), *rest, **kwargs)
    gain = weight.scale_output(x, functools.partial(_mean, context.module))
    return y if gain is None else _rescaled(context.module, y, gain)

  with nn.intercept_methods(intercept):
    out = run()
  for path, weight in tree.paths(params).items():
    if tree.is_node(weight) and weight.transforms_input and path not in stats:
      raise ValueError(
        f'dataflow.apply at {path}: expected a call of its Flax module with '
        f'the input that {type(weight).__name__} transforms, got none. Call it '
        'with positional arguments, not through a function that was jitted '
        'outside.'
      )
  return out, stats


def features(run: Callable[[], Out]) -> tuple[Out, Features]:
  """Run a network, any Flax module unjitted, and record its modules' outputs.

  Args:
    run: Applies Flax modules and returns anything.

  Returns:
    What `run` returned, and the outputs of the modules by path; where several
    networks run that share a path, those of the first.

  Example:
    >>> import jax
    >>> net, x = nn.Sequential([nn.Dense(2), nn.relu]), jnp.ones((1, 3))
    >>> y, found = features(lambda: net.init_with_output(jax.random.key(0), x))
    >>> {path: x.shape for path, x in found.items()}
    {'layers_0': (1, 2)}
  """
  found: Features = {}

  def intercept(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    out = call(*args, **kwargs)
    path = '/'.join(context.module.path)
    if path and context.method_name == '__call__':
      found.setdefault(path, out)
    return out

  with nn.intercept_methods(intercept):
    return run(), found


def mean(
  x: Array,
  window: Sequence[int] = (),
  strides: Sequence[int] = (),
  padding: Any = 'VALID',
  dilation: Sequence[int] | None = None,
) -> Array:
  r"""Return the mean over the window of each output position of a layer.

  Of a convolution $A * k$, A the mean over the channels and k the box filter
  $1 / (w h)$; what is padded counts as 0 (Rastegari+ 2016, arXiv 1603.05279,
  section 3.2).

  Args:
    x: `[batch, *sides, inputs]`.
    window: Sizes of the kernel along the sides; none for a dense layer.
    strides: Of the convolution.
    padding: As `jax.lax.conv_general_dilated` takes it.
    dilation: Of the kernel.

  Returns:
    `[batch, *sides, 1]`, the sides as the convolution leaves them.

  >>> mean(jnp.array([[[1.0, 3.0], [4.0, 4.0], [0.0, 4.0]]]), (2,), (1,))
  Array([[[3.], [3.]]], dtype=float32)
  """
  x = jnp.mean(x, -1, keepdims=True)
  if not window:
    return x
  box = jnp.full((*window, 1, 1), 1 / math.prod(window), x.dtype)
  sides = 'DHW'[-len(window) :]
  names = (f'N{sides}C', f'{sides}IO', f'N{sides}C')
  return jax.lax.conv_general_dilated(
    x, box, strides, padding, rhs_dilation=dilation, dimension_numbers=names
  )


def _mean(module: nn.Module, x: Array) -> Array:
  """Return `mean` for a Flax layer."""
  if not isinstance(module, nn.Conv):
    return mean(x)
  sides = x.ndim - 2
  window = each(module.kernel_size, sides)
  strides, dilation = (
    each(size, sides) for size in (module.strides, module.kernel_dilation)
  )
  x, padding = padded(module, x)
  return mean(x, window, strides, padding, dilation)


def each(size: Any, sides: int) -> tuple[int, ...]:
  """Return an option of a Flax layer for each side.

  >>> each(None, 2), each(3, 2), each((2, 1), 2)
  ((1, 1), (3, 3), (2, 1))
  """
  size = 1 if size is None else size
  return (size,) * sides if isinstance(size, int) else tuple(size)


def padded(module: nn.Conv, x: Array) -> tuple[Array, Any]:
  """Pad the input of a convolution in the ways that `jax.lax` does not have.

  Args:
    module: The convolution.
    x: Its input, `[batch, *sides, inputs]`.

  Returns:
    The input and the padding that is left, as `conv_general_dilated` takes it.
  """
  padding: Any = module.padding
  sides = x.ndim - 2
  if padding not in ('CIRCULAR', 'REFLECT', 'CAUSAL'):
    if isinstance(padding, str):
      return x, padding
    given = each(padding, sides)
    return x, [(p, p) if isinstance(p, int) else tuple(p) for p in given]
  window = each(module.kernel_size, sides)
  dilation = each(module.kernel_dilation, sides)
  reach = [(n - 1) * d for n, d in zip(window, dilation, strict=True)]
  pads = [(n // 2, n - n // 2) for n in reach]
  if padding == 'CAUSAL':
    pads = [(n, 0) for n in reach]
  modes = {'CIRCULAR': 'wrap', 'REFLECT': 'reflect', 'CAUSAL': 'constant'}
  return jnp.pad(x, [(0, 0), *pads, (0, 0)], mode=modes[padding]), 'VALID'


def _rescaled(module: nn.Module, y: Array, gain: Array) -> Array:
  """Return an output of which all but the bias is multiplied."""
  if not module.has_variable('params', 'bias'):
    return y * gain
  bias: Array = module.get_variable('params', 'bias')
  return (y - bias) * gain + bias


def _by_module(params: Params) -> dict[str, tuple[str, Any]]:
  """Return the first weight that each module holds, by module path."""
  found: dict[str, tuple[str, Any]] = {}
  for path, x in tree.paths(params).items():
    if tree.holds_weight(x):
      found.setdefault(path.rpartition('/')[0], (path, x))
  return found
