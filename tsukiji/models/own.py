"""Networks from outside: Flax modules as one layer of a `Spec`."""

import inspect
import json
import pkgutil
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from tsukiji.errors import expect
from tsukiji.models.layers import Own

# Arguments by which a module is told that it trains, and the value for that.
MODES = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}


def made(layer: Own, shape: tuple[int, ...], **more: Any) -> Any:
  """Return what the function of a layer makes.

  Args:
    layer: The layer.
    shape: Of one example.
    **more: Arguments that the function gets if it takes them.

  Returns:
    A Flax module (Linen or NNX), or a pair `(init, apply)`.

  Raises:
    ValueError: If there is no such function, or it makes something else.
  """
  where = f'network {layer.function}'
  try:
    fn: Callable[..., Any] = pkgutil.resolve_name(layer.function)
  except (AttributeError, ImportError, ValueError) as e:
    raise ValueError(
      f'{where}: expected a function that can be imported, got {e!r}. Write '
      "'package.module:function'."
    ) from e
  known = inspect.signature(fn).parameters
  taken = {key: x for key, x in more.items() if key in known}
  try:
    found = fn(shape, layer.outputs, **json.loads(layer.sizes), **taken)
  except TypeError as e:
    raise ValueError(
      f'{where}: expected arguments that it takes, got {layer.sizes}. {e}.'
    ) from e
  pair = isinstance(found, tuple) and len(found) == 2
  what = 'a Flax module or a pair (init, apply)'
  right = isinstance(found, nn.Module | nnx.Module) or pair
  expect(where, right, what, type(found).__name__)
  return found


class OwnNet(nn.Module):
  """Apply a network from outside.

  Attributes:
    layer: Which one.
  """

  layer: Own

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Return the outputs of `[batch, ...]`."""
    key = self.make_rng('params') if self.is_initializing() else None
    rngs = nnx.Rngs(jax.random.key(0) if key is None else key)
    found = made(self.layer, x.shape[1:], rngs=rngs)
    if isinstance(found, nn.Module):
      inside = found.parent is self  # where the function has made it here
      module: Any = found if inside else found.clone(parent=self)
      nn.share_scope(self, module)
      return self._checked(module(x, **mode(module.__call__, train)))
    if isinstance(found, nnx.Module):
      return self._checked(self._nnx(found, x, train))
    init, apply = found
    params = self.param('params', lambda key: init(key, x))
    return self._checked(apply(params, x, **mode(apply, train)))

  def _nnx(self, model: Any, x: jax.Array, train: bool) -> jax.Array:
    """Return the outputs of an NNX module, its state held by this one."""
    split: Any = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    graph, params, stats, rest = split
    weights = {
      key: self.param(str(key), lambda _, part=part: part)
      for key, part in nnx.to_pure_dict(params).items()
    }
    moments = {
      key: self.variable('batch_stats', str(key), lambda part=part: part)
      for key, part in nnx.to_pure_dict(stats).items()
    }
    nnx.replace_by_pure_dict(params, weights)
    nnx.replace_by_pure_dict(stats, {k: v.value for k, v in moments.items()})
    model = nnx.merge(graph, params, stats, rest)
    if train and not self.is_initializing():
      model.train()
      key = self.make_rng('dropout')
      nnx.reseed(model, default=key, dropout=key)
    else:
      model.eval()
    y: jax.Array = model(x)
    if train and self.is_mutable_collection('batch_stats'):
      after: Any = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
      for name, moment in moments.items():
        moment.value = after[name]
    return y

  def _checked(self, y: Any) -> jax.Array:
    """Return outputs as float32; raise unless there are as many as asked."""
    shape = getattr(y, 'shape', type(y).__name__)
    right = getattr(y, 'ndim', 0) == 2 and y.shape[1] == self.layer.outputs
    what = f'outputs [batch, {self.layer.outputs}]'
    expect(f'network {self.layer.function}', right, what, shape)
    return jnp.asarray(y, jnp.float32)


def mode(call: Callable[..., Any], train: bool) -> dict[str, bool]:
  """Return the argument by which a function is told that it trains.

  >>> mode(lambda x, deterministic: x, True)
  {'deterministic': False}
  """
  known = inspect.signature(call).parameters
  return {key: x == train for key, x in MODES.items() if key in known}
