"""Binary networks of papers: signs on both sides."""

from compress.binary.inputs import inputs
from compress.binary.weights import weights
from compress.method import Method, chain


def bnn(*, stochastic: bool = False, ends: bool = True) -> Method:
  """Train a binary network: signs for weights and inputs, without scales.

  `inputs() >> weights(scale='none')`. The first layer sees the image as it is
  (Courbariaux & Hubara+ 2016, arXiv 1602.02830), in a network of the order
  convolution, pool, norm (`zoo.binary_tsukijinet`).

  Args:
    stochastic: Whether the signs of weights are drawn in training.
    ends: Whether the first and the last layer are binary too.

  Returns:
    The method.

  Raises:
    ValueError: As `inputs` and `weights`.
  """
  return chain(
    inputs(ends=ends),
    weights(scale='none', stochastic=stochastic, ends=ends),
  )


def xnor(*, ends: bool = False) -> Method:
  """Train an XNOR-Net: signs, each side scaled by its mean size.

  `inputs(scaled=True) >> weights()` (Rastegari+ 2016, arXiv 1603.05279).

  Args:
    ends: Whether the first and the last layer are binary too.

  Returns:
    The method.

  Raises:
    ValueError: As `inputs` and `weights`.
  """
  return chain(inputs(scaled=True, ends=ends), weights(ends=ends))


def react(*, ends: bool = False) -> Method:
  """Train a binary network as ReActNet does: learned thresholds of inputs.

  `inputs(gradient='quadratic', threshold=True) >> weights()` (Liu+ 2020, arXiv
  2003.03488), in a network with shortcuts around its layers and shifted
  activations (`zoo.binary_vgg`); chain `distill.kd` before it.

  Args:
    ends: Whether the first and the last layer are binary too.

  Returns:
    The method.

  Raises:
    ValueError: As `inputs` and `weights`.
  """
  return chain(
    inputs(gradient='quadratic', threshold=True, ends=ends),
    weights(ends=ends),
  )
