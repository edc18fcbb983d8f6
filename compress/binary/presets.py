"""Binary networks from papers, with binary weights and inputs."""

from compress.binary.inputs import inputs
from compress.binary.weights import weights
from compress.method import Method, chain


def bnn(*, stochastic: bool = False, ends: bool = True) -> Method:
  """Train a BNN: signs of weights and inputs, without scales.

  `inputs() >> weights(scale='none')` (Courbariaux & Hubara+ 2016, arXiv
  1602.02830). The input of the first layer is not binarize. Use it in a
  network with layers in the order convolution, pool, norm
  (`zoo.binary_tsukijinet`).

  Args:
    stochastic: Whether the signs of weights are sampled in training.
    ends: Whether to binarize the first and the last layer too.

  Returns:
    The method.

  Raises:
    ValueError: See `inputs` and `weights`.
  """
  return chain(
    inputs(ends=ends),
    weights(scale='none', stochastic=stochastic, ends=ends),
  )


def xnor(*, ends: bool = False) -> Method:
  """Train an XNOR-Net: signs scaled by the mean magnitudes.

  `inputs(scaled=True) >> weights()` (Rastegari+ 2016, arXiv 1603.05279).

  Args:
    ends: Whether to binarize the first and the last layer too.

  Returns:
    The method.

  Raises:
    ValueError: See `inputs` and `weights`.
  """
  return chain(inputs(scaled=True, ends=ends), weights(ends=ends))


def react(*, ends: bool = False) -> Method:
  """Train a ReActNet: signs of inputs with trained thresholds.

  `inputs(gradient='quadratic', threshold=True) >> weights()` (Liu+ 2020, arXiv
  2003.03488). Use it in a network with shortcuts around its layers and shifted
  activations (`zoo.binary_vgg`), and chain `distill.kd` before it.

  Args:
    ends: Whether to binarize the first and the last layer too.

  Returns:
    The method.

  Raises:
    ValueError: See `inputs` and `weights`.
  """
  return chain(
    inputs(gradient='quadratic', threshold=True, ends=ends),
    weights(ends=ends),
  )
