r"""Rate penalty: the bits of an entropy coder as a term of the loss.

A file stores the codes of a layer at their entropy. If a code k has a
probability proportional to $\theta^{|k|}$ (a discrete Laplace distribution),
its entropy is a function of the mean magnitude m,

$H(m) = \log_2 \frac{1 + \theta}{1 - \theta} - m \log_2 \theta, \qquad
\theta = \frac{m}{1 + \sqrt{1 + m^2}}$,

with the maximum-likelihood $\theta$, so that the model has no parameters.
Joint training for accuracy and bits follows entropy-penalized
reparameterization (Oktay+ 2020, arXiv 1906.06624, equation 4), which learns the
density. Since $\partial H / \partial m = -\log_2 \theta$, the penalty is a
lasso that is stronger for layers with smaller codes.
"""

import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.integer_codes import LatentWeight
from compress.regularize.penalties import expect_penalty
from compress.schedule import Schedule, at_once
from compress.tree import Array, Params


def entropy(strength: float, *, schedule: Schedule | None = None) -> Method:
  r"""Add $\lambda$ times the mean bits of a weight to the loss.

  It follows the quantizer whose codes it counts, as in
  `quantize.lsq(4) >> regularize.entropy(0.05)`; learned step sizes are trained
  by it too.

  Args:
    strength: $\lambda$, 0 or more: loss per bit and weight; 0.01 to 0.3.
    schedule: How it grows over the run; by default constant.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If the strength is negative or not finite, or the schedule not
      callable; in training, if no weight has a grid with 0.
  """
  amount = at_once() if schedule is None else schedule
  expect_penalty('regularize.entropy', strength, amount)

  def loss(params: Params, ctx: Ctx) -> Array:
    nodes = [
      node
      for node in tree.find(LatentWeight, params).values()
      if not node.between
    ]
    if not nodes:
      raise ValueError(
        'regularize.entropy: expected weights on grids that have 0, got none. '
        'Quantize first, as quantize.lsq(4) >> regularize.entropy(0.05).'
      )
    total = sum((node_bits(node) for node in nodes), jnp.zeros(()))
    count = sum(tree.decode(node.w).size for node in nodes)
    return strength * amount(ctx.progress) * total / count

  return Method(loss=loss)


def node_bits(node: LatentWeight) -> Array:
  """Return the bits of the codes `()`, differentiable in weight and step."""
  w = tree.decode(node.w)
  codes, scale, zero = node.quantize()
  fine = w / affine.broadcast_columns(scale, w.shape)
  if zero is not None:
    codes = codes - affine.broadcast_columns(zero, w.shape)
  size = jnp.mean(affine.straight_through(jnp.abs(codes), jnp.abs(fine)))
  # One code more, so that the gradient is finite for a layer of zeros.
  return w.size * geometric_entropy(size + 1 / w.size)


def geometric_entropy(mean: Array) -> Array:
  r"""Return $H(m)$ in bits, for a mean magnitude above 0.

  >>> round(float(geometric_entropy(jnp.float32(4 / 3))), 4)  # theta is 1 / 2
  2.9183
  """
  theta = mean / (1 + jnp.sqrt(1 + mean**2))
  return jnp.log2((1 + theta) / (1 - theta)) - mean * jnp.log2(theta)
