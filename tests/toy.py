"""A regression whose relevant weights are known, and a run on it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compress import tree
from compress.method import Ctx, Method

NOISE = 0.3
TRUE = np.zeros((12, 3), np.float32)
TRUE[0], TRUE[1, 0], TRUE[2, 2] = [2.0, -1.0, 1.5], -1.5, 1.0
RELEVANT = TRUE != 0


class Run(NamedTuple):
  """What came of a run.

  Attributes:
    nodes: The tree at the end.
    w: Its decoded weight, `[12, 3]`.
    history: The decoded weight after every step, `[steps, 12, 3]`.
  """

  nodes: Any
  w: np.ndarray
  history: np.ndarray


def data(count: int = 512) -> tuple[jax.Array, jax.Array]:
  """Return inputs and noisy targets `x @ TRUE`."""
  drawn = np.random.default_rng(3)
  x = drawn.normal(size=(count, 12))
  y = x @ TRUE + NOISE * drawn.normal(size=(count, 3))
  return jnp.float32(x), jnp.float32(y)


def fit(
  method: Method, steps: int = 300, lr: float = 0.03, batch: int = 64
) -> Run:
  """Minimize the negative log likelihood, as `tsukiji.training.step` would."""
  x, y = data()
  tx = optax.adam(optax.cosine_decay_schedule(lr, steps))

  def step(carry: Any, at: Any) -> Any:
    params, opt = carry
    trainable, frozen = tree.split(params)
    key = jax.random.fold_in(jax.random.key(0), at)
    rows = jax.random.choice(key, len(x), (batch,))

    def loss(trainable: Any) -> Any:
      nodes = tree.merge(trainable, frozen)
      error = x[rows] @ tree.decode_training(nodes, key)['w'] - y[rows]
      likelihood = jnp.mean(jnp.sum(error**2, -1)) / (2 * NOISE**2)
      return likelihood + method.loss(nodes, Ctx(at, steps))

    updates, opt = tx.update(jax.grad(loss)(trainable), opt, trainable)
    params = tree.merge(optax.apply_updates(trainable, updates), frozen)
    params = method.update(params, Ctx(at + 1, steps))
    return (params, opt), tree.decode(params)['w']

  start = {'w': jnp.float32(TRUE) + 0.1}
  params = method.init(start, Ctx(0, steps))
  carry = params, tx.init(tree.split(params)[0])
  run = jax.jit(functools.partial(jax.lax.scan, step))
  (nodes, _), history = run(carry, jnp.arange(steps))
  w = np.asarray(tree.decode(nodes)['w'])
  return Run(nodes, w, np.asarray(history))
