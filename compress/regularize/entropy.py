r"""Rate: the bits that an entropy coder takes, as a part of the loss.

A file stores the codes of a layer at their entropy. Where codes of size k are
as frequent as $\theta^{|k|}$, in the limit of fine grids Laplace's density, it
hangs on their mean size m alone,

$H(m) = \log_2 \frac{1 + \theta}{1 - \theta} - m \log_2 \theta, \qquad
\theta = \frac{m}{1 + \sqrt{1 + m^2}}$,

so that the model needs no parameters of its own: its $\theta$ is the likeliest
at every step. Training for accuracy and bits at once is entropy-penalised
reparameterisation (Oktay+ 2020, arXiv 1906.06624, equation 4), there with a
learned density; $\partial H / \partial m = -\log_2 \theta$ makes this a lasso
that pulls at a layer the harder the emptier it is.
"""

import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, Method
from compress.quantize import affine
from compress.quantize.nodes import Gridded
from compress.regularize.penalties import expect
from compress.schedule import Schedule, at_once
from compress.tree import Array, Params


def entropy(strength: float, *, schedule: Schedule | None = None) -> Method:
  r"""Add $\lambda$ times the mean bits of a weight to the loss.

  Put it behind the grids whose codes it counts, as in
  `quantize.lsq(4) >> regularize.entropy(0.05)`; the steps of learned grids grow
  where that saves more than it costs.

  Args:
    strength: $\lambda$, 0 or more: loss per bit a weight; 0.01 to 0.3.
    schedule: How it grows over the run; by default it is whole at once.

  Returns:
    The method; it has only a loss.

  Raises:
    ValueError: If the strength is negative or not finite, or the schedule
      none; in training if no weight has a grid around 0.
  """
  amount = at_once() if schedule is None else schedule
  expect('regularize.entropy', strength, amount)

  def loss(params: Params, ctx: Ctx) -> Array:
    nodes = [
      node for node in tree.find(Gridded, params).values() if not node.between
    ]
    if not nodes:
      raise ValueError(
        'regularize.entropy: expected weights on grids that have 0, got none. '
        'Put it behind one, as quantize.lsq(4) >> regularize.entropy(0.05).'
      )
    total = sum((node_bits(node) for node in nodes), jnp.zeros(()))
    count = sum(tree.decode(node.w).size for node in nodes)
    return strength * amount(ctx.progress) * total / count

  return Method(loss=loss)


def node_bits(node: Gridded) -> Array:
  """Return the bits of a layer's codes `()`, with slopes by weight and step."""
  w = tree.decode(node.w)
  codes, scale, zero = node.coded()
  fine = w / affine.stretched(scale, w.shape)
  if zero is not None:
    codes = codes - affine.stretched(zero, w.shape)
  size = jnp.mean(affine.straight_through(jnp.abs(codes), jnp.abs(fine)))
  # Of one code too many, so that a layer of zeros has a slope.
  return w.size * geometric_entropy(size + 1 / w.size)


def geometric_entropy(mean: Array) -> Array:
  r"""Return $H(m)$ in bits, for a mean size above 0.

  >>> round(float(geometric_entropy(jnp.float32(4 / 3))), 4)  # theta is 1 / 2
  2.9183
  """
  theta = mean / (1 + jnp.sqrt(1 + mean**2))
  return jnp.log2((1 + theta) / (1 - theta)) - mean * jnp.log2(theta)
