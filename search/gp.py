"""Gaussian processes: kernel, MAP fit, posterior.

Everything is float64: callers enter `precise()`, which is a local setting.
Arrays are padded to powers of two, so that a search compiles few programs: a
padded row has mask 0 and becomes a row of the identity, which changes neither
the determinant nor the solution (Rasmussen & Williams 2006).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.scipy.linalg import cho_solve, solve_triangular
from threadpoolctl import ThreadpoolController

Array: TypeAlias = jax.Array | np.ndarray

NOISE = 1e-6  # least variance of the noise, of outputs of variance 1
LEAST = 32  # smallest padding
FITTED = 64  # points that hyper-parameters are fitted to, at most
STEPS = 40  # of L-BFGS
CENTER, WIDTH = -1.0, 1.0  # of the logarithms of length-scales


class Data(NamedTuple):
  """Padded observations.

  Attributes:
    x: Features in [0, 1], `[n, d]`.
    y: Standardized outputs, `[n]`.
    mask: 1 for observations, 0 for padding, `[n]`.
  """

  x: Array
  y: Array
  mask: Array


class Model(NamedTuple):
  """A fitted process.

  Attributes:
    theta: Hyper-parameters, `[2 d + 4]`; see `unpack`.
    x: Observed features, `[n, d]`.
    mask: 1 for observations, `[n]`.
    inverse: Inverse of the Cholesky factor of the covariance, `[n, n]`.
    alpha: Covariance solved for each column of outputs, `[n, s]`.
  """

  theta: Array
  x: Array
  mask: Array
  inverse: Array
  alpha: Array


class Hyper(NamedTuple):
  """Hyperparameters by name.

  Attributes:
    joint: Inverse squared length-scales of the joint part, `[d]`.
    univariate: Inverse squared length-scales of the additive part, `[d]`.
    scale: Variance of the function, `()`.
    additive: Share of the variance that is additive, `()`.
    smooth: Share of the joint part that has all derivatives, `()`.
    noise: Variance of the noise, `()`.
  """

  joint: Array
  univariate: Array
  scale: Array
  additive: Array
  smooth: Array
  noise: Array


@contextlib.contextmanager
def precise() -> Iterator[None]:
  """Compute in float64, in this thread only, and factorize on one core.

  OpenBLAS takes all cores for a matrix of 64 rows, and then 20 times as long
  where they are busy.
  """
  with jax.enable_x64(True), _libraries().limit(limits=1, user_api='blas'):
    yield


@functools.cache
def _libraries() -> ThreadpoolController:
  """Find thread pools once, which takes milliseconds."""
  return ThreadpoolController()


def unpack(theta: Array) -> Hyper:
  """Name the entries of `[2 d + 4]` unconstrained hyper-parameters."""
  d = (theta.shape[0] - 4) // 2
  joint, univariate = jnp.exp(theta[:d]), jnp.exp(theta[d : 2 * d])
  scale, share, smooth, noise = theta[2 * d :]
  return Hyper(
    joint,
    univariate,
    jnp.exp(scale),
    jax.nn.sigmoid(share),
    jax.nn.sigmoid(smooth),
    NOISE + jnp.exp(noise),
  )


def matern(square: Array) -> Array:
  r"""Return the Matern-5/2 correlation of squared scaled distances.

  $(1 + \sqrt 5 r + 5 r^2 / 3) e^{-\sqrt 5 r}$ (Rasmussen & Williams 2006,
  equation 4.17), with a gradient at 0.

  >>> float(matern(jnp.zeros(())))
  1.0
  """
  r = jnp.sqrt(5 * square + 1e-30)
  return (1 + r + r * r / 3) * jnp.exp(-r)


def kernel(theta: Array, category: Array, a: Array, b: Array) -> Array:
  r"""Return the covariance of the function at two sets of points.

  $s ((1 - w) k(\sum_i D_i / l_i^2) + w / d \sum_i m(D_i / l_i'^2))$: $k$ is a
  mixture of Matern and its smooth limit $e^{-r^2 / 2}$, with a length-scale for
  each feature (ARD), plus Matern's first-order additive form (Duvenaud et al.
  2011, arXiv 1112.4394, equation 3). $D_i$ is the squared difference, or for
  categories 1 where they differ: the Hamming distance.

  Args:
    theta: `[2 d + 4]`.
    category: Which features are categories, `[d]`, bool.
    a: Features, `[p, d]`.
    b: Features, `[q, d]`.

  Returns:
    `[p, q]`.
  """
  hyper = unpack(theta)
  gap = a.T[:, :, None] - b.T[:, None, :]
  apart = jnp.where(category[:, None, None], gap != 0, gap * gap)
  square = jnp.tensordot(hyper.joint, apart, 1)
  rough = matern(square)
  joint = rough + hyper.smooth * (jnp.exp(-0.5 * square) - rough)
  univariate = matern(hyper.univariate[:, None, None] * apart).mean(0)
  return hyper.scale * (joint + hyper.additive * (univariate - joint))


def covariance(theta: Array, category: Array, data: Data) -> Array:
  """Return the covariance of noisy observations, padding as the identity."""
  both = data.mask[:, None] * data.mask
  noise = jnp.where(data.mask > 0, unpack(theta).noise, 1.0)
  return kernel(theta, category, data.x, data.x) * both + jnp.diag(noise)


def log_prior(theta: Array) -> Array:
  r"""Return the log density of the hyper-parameters, up to a constant.

  Length-scales are LogNormal with a center that grows as $\sqrt d$ (Hvarfner
  et al. 2024, arXiv 2402.02229), and the rest is weak: the variance near 1, the
  noise small.
  """
  d = (theta.shape[0] - 4) // 2
  length = -0.5 * theta[:d]
  univariate = -0.5 * theta[d : 2 * d]
  scale, share, smooth, noise = theta[2 * d :]
  return -0.5 * (
    jnp.sum(((length - 0.5 * jnp.log(d) - CENTER) / WIDTH) ** 2)
    + jnp.sum(((univariate - CENTER) / WIDTH) ** 2)
    + scale**2
    + ((share + 1.0) / 2.0) ** 2
    + (smooth / 2.0) ** 2
    + ((noise + 11.0) / 3.0) ** 2
  )


@jax.jit
def loss(theta: Array, category: Array, data: Data) -> tuple[Array, Array]:
  r"""Return the negative log posterior of `theta` and its gradient.

  With $a = K^{-1} y$ the gradient of the likelihood is $\frac 1 2 tr((K^{-1} -
  a a^T) \partial K)$ (Rasmussen & Williams 2006, equation 5.9): nothing is
  differentiated through the Cholesky factor.

  Args:
    theta: `[2 d + 4]`.
    category: `[d]`, bool.
    data: Padded observations.

  Returns:
    `()` and `[2 d + 4]`.
  """
  total, pull = jax.vjp(lambda t: covariance(t, category, data), theta)
  factor = jnp.linalg.cholesky(total)
  y = data.y * data.mask
  a = cho_solve((factor, True), y)
  inverse = cho_solve((factor, True), jnp.eye(len(y)))
  (slope,) = pull(0.5 * (inverse - a[:, None] * a))
  value = 0.5 * y @ a + jnp.sum(jnp.log(jnp.diag(factor)))
  prior, pulled = jax.value_and_grad(log_prior)(theta)
  return value - prior, slope - pulled


def start(d: int) -> np.ndarray:
  """Return where fits start: the modes of the priors, `[2 d + 4]`."""
  joint, univariate = (
    np.full(d, -2 * CENTER - np.log(d)),
    np.full(d, -2 * CENTER),
  )
  return np.concatenate([joint, univariate, [0.0, -1.0, 0.0, -8.0]])


def padded(x: Array, y: Array) -> Data:
  """Return observations, padded to a power of two of rows.

  >>> [a.shape for a in padded(np.zeros((9, 2)), np.zeros(9))]
  [(32, 2), (32,), (32,)]
  """
  n = len(x)
  more = max(LEAST, 1 << (n - 1).bit_length()) - n
  return Data(
    np.pad(np.asarray(x, np.float64), ((0, more), (0, 0))),
    np.pad(np.asarray(y, np.float64), (0, more)),
    np.pad(np.ones(n), (0, more)),
  )


def spread(y: np.ndarray, limit: int) -> np.ndarray:
  """Return a subset of observations to fit: the best half, and some others."""
  if len(y) <= limit:
    return np.arange(len(y))
  order = np.argsort(y, kind='stable')
  rest = order[limit // 2 :]
  some = rest[np.linspace(0, len(rest) - 1, limit - limit // 2).astype(int)]
  return np.concatenate([order[: limit // 2], some])


def fit(
  x: np.ndarray,
  y: np.ndarray,
  category: np.ndarray,
  begin: np.ndarray | None = None,
  steps: int = STEPS,
) -> tuple[np.ndarray, float]:
  """Return the hyper-parameters of highest posterior density.

  Args:
    x: Features, `[n, d]`.
    y: Standardized outputs, `[n]`.
    category: `[d]`, bool.
    begin: Where to start, `[2 d + 4]`; by default at the modes of the priors.
    steps: Of L-BFGS, at most.

  Returns:
    `[2 d + 4]`, and the negative log posterior there.
  """
  rows = spread(y, FITTED)
  data = padded(x[rows], y[rows])

  def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
    one, slope = loss(theta, category, data)
    return float(one), np.asarray(slope)

  modes = start(x.shape[1])
  bounds = [(t - 8.0, t + 8.0) for t in modes]
  found = scipy.optimize.minimize(
    value,
    modes if begin is None else begin,
    jac=True,
    method='L-BFGS-B',
    bounds=bounds,
    options={'maxiter': steps, 'ftol': 1e-6},
  )
  return found.x, found.fun


@jax.jit
def condition(
  theta: Array, category: Array, data: Data, outputs: Array
) -> Model:
  """Return the process given columns of outputs at the observed points.

  Args:
    theta: `[2 d + 4]`.
    category: `[d]`, bool.
    data: Padded observations; `data.y` is not looked at.
    outputs: `[n, s]`.

  Returns:
    The model.
  """
  factor = jnp.linalg.cholesky(covariance(theta, category, data))
  inverse = solve_triangular(factor, jnp.eye(len(factor)), lower=True)
  alpha = inverse.T @ (inverse @ (outputs * data.mask[:, None]))
  return Model(theta, data.x, data.mask, inverse, alpha)


def predict(model: Model, category: Array, x: Array) -> tuple[Array, Array]:
  """Return mean and deviation of the function, without noise.

  Args:
    model: The process.
    category: `[d]`, bool.
    x: Features, `[p, d]`.

  Returns:
    Means `[p, s]`, deviations `[p]`.
  """
  across = kernel(model.theta, category, x, model.x) * model.mask
  known = jnp.sum((across @ model.inverse.T) ** 2, axis=1)
  variance = unpack(model.theta).scale - known
  return across @ model.alpha, jnp.sqrt(jnp.maximum(variance, 1e-12))


@jax.jit
def joint(model: Model, category: Array) -> tuple[Array, Array]:
  """Return means `[n, s]` and covariances `[n, n]` at the model's own rows.

  Of all rows, so that what is pending may be among them, masked.
  """
  across = kernel(model.theta, category, model.x, model.x)
  half = (across * model.mask) @ model.inverse.T
  return (across * model.mask) @ model.alpha, across - half @ half.T
