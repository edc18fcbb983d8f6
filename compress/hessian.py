"""Curvature of the loss: traces of the Hessian, squares of gradients."""

import jax
import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, expect_probe
from compress.tree import Array, Params, Path

DRAWS = 32  # directions; the error falls with their square root


def traces(
  where: str, params: Params, ctx: Ctx, draws: int = DRAWS
) -> dict[Path, Array]:
  r"""Return the trace of the Hessian of the loss in each decoded array.

  $\mathrm{tr} H_l \approx \frac{1}{m} \sum_k v_{kl}^T (H v_k)_l$ with random
  signs $v_k$ (Hutchinson 1990; Dong+ 2020, arXiv 1911.03852, equation 5), each
  product the derivative of the gradient along $v_k$.

  Args:
    where: Name of the method, for errors.
    params: Arrays and nodes; None is replaced by the trained weight.
    ctx: With a probe; the key may be None.
    draws: How many directions, m.

  Returns:
    By path, `()`.

  Raises:
    ValueError: If there is no calibration data.
  """
  probe = expect_probe(where, ctx)
  start = tree.decode(params)
  leaves, treedef = jax.tree.flatten(start)

  def product(key: Array) -> Params:
    keys = jax.random.split(key, len(leaves))
    signs = [
      jax.random.rademacher(k, x.shape, x.dtype)
      for k, x in zip(keys, leaves, strict=True)
    ]
    along = jax.tree.unflatten(treedef, signs)
    bent = tree.paths(jax.jvp(probe.grad, (start,), (along,))[1])
    return {p: jnp.sum(v * bent[p]) for p, v in tree.paths(along).items()}

  first = jax.random.key(0) if ctx.key is None else ctx.key
  found = jax.lax.map(product, jax.random.split(first, draws))
  return {path: jnp.mean(x) for path, x in found.items()}


def squares(
  weights: dict[Path, Array], gradients: dict[Path, Array]
) -> dict[Path, Array]:
  """Return the summed squares of gradients: a statistic of `Probe.reduce`.

  Its mean is the diagonal of the empirical Fisher matrix.
  """
  del weights
  return {path: jnp.sum(g**2, axis=0) for path, g in gradients.items()}
