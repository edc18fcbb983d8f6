"""Compression in a training loop of your own.

probe = compress.probe(apply, params, inputs, loss=loss, batch=batch)
params = compress.init(method, params, probe, steps=steps, key=key)
opt = tx.init(compress.trainable(params))

# In the jitted step:
value, grads = compress.value_and_grad(loss, method)(
  params, batch, step=i, steps=steps, key=key
)
updates, opt = tx.update(grads.trainable, opt, compress.trainable(params))
params = compress.update(
  method, params, updates, grads, step=i, steps=steps, key=key
)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from compress import dataflow, probing, state, tree
from compress.dataflow import arranged
from compress.method import FEATURES, Ctx, Method, Probe, chain, same
from compress.tree import Array, Key, Params, Path, Stats


class Gradients(NamedTuple):
  """What one step tells the optimizer and the method.

  Attributes:
    trainable: In the shape of `trainable(params)`, for optax.
    dense: In the shape of `decode(params)`.
    stats: `[min, max]` of the input of each weight, by path.
  """

  trainable: Params
  dense: Params
  stats: Stats


def init(
  method: Method,
  params: Params,
  probe: Probe | None = None,
  steps: int = 1,
  key: Key | None = None,
  *,
  gains: dict[Path, Array] | None = None,
) -> Params:
  """Return the parameters with the nodes of a method.

  Args:
    method: What to do, as `parse('prune.weights(0.9) >> quantize.int8()')`.
    params: Any tree of arrays: of Flax, Equinox, Haiku or none.
    probe: Of the network; without it weights are what has two axes or more,
      with the outputs last, and inputs are not known.
    steps: Optimizer steps of the run, 0 for compression without training.
    key: Randomness of the method.
    gains: See `Ctx.gains`.

  Returns:
    The tree; its leaves are arrays and nodes.

  Raises:
    ValueError: If the method cannot be applied; the message says where and why.
  """
  like = params if probe is None else arranged.arrange(params, probe.sites)
  seen = arranged.seen(like)
  ranges = None if probe is None else probe.ranges
  ctx = Ctx(
    0,
    steps,
    jax.random.key(0) if key is None else key,
    stats=ranges(seen) if ranges else None,
    batch=probe.batch if probe and method.requires else None,
    probe=probe,
    gains=gains,
  )
  return arranged.restored(method.init(seen, ctx), like)


def trainable(params: Params) -> Params:
  """Return the arrays that the optimizer moves, None in place of others."""
  return tree.split(params)[0]


def value_and_grad(
  loss: Callable[[Params, Any], Any],
  method: Method | None = None,
  has_aux: bool = False,
) -> Callable[..., tuple[Any, Gradients]]:
  """Return a function that gives the loss and its gradients.

  As `jax.value_and_grad`, of compressed parameters. Whatever meets a weight in
  a product passes the grid of its node first; the loss of the method is added.

  Args:
    loss: `(params, batch)` -> the loss of dense parameters, `()`. It may call
      networks of any framework.
    method: That of `init`; None for plain training.
    has_aux: Whether the loss returns a pair, of which the second is passed
      through. A `Batch` in it is what methods compare, as distillation does
      the outputs of a student and a teacher.

  Returns:
    `(params, batch, *, step, steps, key)` -> the loss (or the pair) and
    `Gradients`. Without a key, methods that draw random numbers refuse.

  Raises:
    ValueError: Where it is called, if the loss is not one number.
  """
  method = chain() if method is None else method

  def wrapped(
    params: Params,
    batch: Any,
    *,
    step: Array | int = 0,
    steps: int = 1,
    key: Key | None = None,
  ) -> tuple[Any, Gradients]:
    at_decode, at_method = _keys(key)
    free, frozen = tree.split(params)
    dense, pull = jax.vjp(
      lambda free: tree.decode_training(tree.merge(free, frozen), at_decode),
      free,
    )
    ctx = Ctx(step, steps, at_method)

    def total(dense: Params, free: Params) -> tuple[Array, tuple[Any, Stats]]:
      nodes = tree.merge(free, frozen)
      outputs, stats, features = _run(loss, method, dense, nodes, batch)
      value, aux = outputs if has_aux else (outputs, None)
      _expect_number(value)
      known = probing.with_features(probing.found_batch(aux), features)
      now = ctx._replace(stats=stats, batch=known)
      own = method.loss(arranged.seen(nodes), now)
      return value + own.astype(value.dtype), (aux, stats)

    (value, (aux, stats)), (slopes, direct) = jax.value_and_grad(
      total, argnums=(0, 1), has_aux=True
    )(dense, free)
    pulled = jax.tree.map(jnp.add, pull(slopes)[0], direct)
    found = Gradients(pulled, slopes, stats)
    return ((value, aux) if has_aux else value), found

  return wrapped


def _expect_number(value: Any) -> None:
  if getattr(value, 'shape', None) != ():
    shape = getattr(value, 'shape', type(value).__name__)
    raise ValueError(
      f'compress.value_and_grad: expected a loss of one number, got {shape}. '
      'Take the mean over the batch, or pass has_aux=True for a pair.'
    )


def _run(
  loss: Callable[[Params, Any], Any],
  method: Method,
  dense: Params,
  nodes: Params,
  batch: Any,
) -> dataflow.Observed:
  """Return the outputs of a loss, and what the method needs to know."""
  grids = dataflow.transforming(nodes)
  with_features = FEATURES in method.requires
  if method.update is same and not grids and not with_features:
    return dataflow.Observed(loss(dense, batch), {}, {})
  return dataflow.observed(
    loss, dense, (batch,), grids, with_features=with_features
  )


def update(
  method: Method,
  params: Params,
  updates: Params,
  grads: Gradients,
  step: Array | int = 0,
  steps: int = 1,
  key: Key | None = None,
  *,
  gains: Callable[[Params], dict[Path, Array]] | None = None,
) -> Params:
  """Return the parameters after a step of the optimizer and of the method.

  Args:
    method: That of `init`.
    params: Before the step.
    updates: Of optax, for `trainable(params)`.
    grads: Of `value_and_grad`.
    step: Steps taken before this one.
    steps: Of the run.
    key: That of `value_and_grad`.
    gains: New parameters -> `Ctx.gains`.

  Returns:
    A tree of the same structure, shapes and types.
  """
  free, frozen = tree.split(params)
  params = tree.merge(optax.apply_updates(free, updates), frozen)
  if method.update is same:
    return params
  ctx = Ctx(
    jnp.asarray(step) + 1,
    steps,
    _keys(key)[1],
    grads=arranged.seen_like(grads.dense, params),
    stats=grads.stats,
    gains=gains(state.bare(params)) if gains else None,
  )
  done = method.update(arranged.seen(params), ctx)
  return arranged.restored(done, params)


def _keys(key: Key | None) -> tuple[Key | None, Key | None]:
  """Return the keys of decoding and of the method in one step."""
  if key is None:
    return None, None
  at_decode, at_method = jax.random.split(key)
  return at_decode, at_method
