"""A convolution and a dense layer, compressed by a recipe."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress import recipe
from compress.method import Ctx

CTX = Ctx(0, 9, jax.random.key(0))


def _params() -> dict[str, Any]:
  generator = np.random.default_rng(0)
  return {
    'conv': {'kernel': jnp.float32(generator.normal(size=(3, 3, 2, 4)))},
    'fc': {
      'bias': jnp.ones(6),
      'kernel': jnp.float32(generator.normal(size=(10, 6))),
    },
  }


PARAMS = _params()


def init(text: str) -> Any:
  """Return the nodes that a recipe makes of the layers."""
  return recipe.parse(text).init(PARAMS, CTX)
