"""Factorizations of many matrices."""

from collections.abc import Callable
from typing import Any

import jax

from compress.tree import Array


def each(fn: Callable[..., Any], *batches: Array) -> Any:
  """Return `jax.vmap(fn)(*batches)` for an `fn` that calls LAPACK.

  On a CPU, a batch is spread over the threads of XLA and waited for in one of
  them, so that as many batches as there are threads wait for one another
  forever (jaxlib 0.10). Therefore matrices are factored one at a time there:
  on a core that takes as long, but 2 to 3 times for solves of 8 unknowns.

  Args:
    fn: A function of matrices.
    batches: Of the same number of matrices, `[n, ...]`.

  Returns:
    The results, `[n, ...]`.

  >>> import jax.numpy as jnp
  >>> each(jnp.linalg.cholesky, 4 * jnp.ones((3, 1, 1))).ravel().tolist()
  [2.0, 2.0, 2.0]
  """
  found: Any = jax.lax.platform_dependent(
    *batches,
    cpu=lambda *given: jax.lax.map(lambda one: fn(*one), given),
    default=jax.vmap(fn),
  )
  return found
