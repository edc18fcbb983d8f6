"""Kernels as integers times a scale."""

from typing import Any, NamedTuple

import numpy as np

from compress.quantize.integer_codes import Quantized, Shifted


class Codes(NamedTuple):
  """A kernel as integers times a scale.

  Attributes:
    codes: int32 `[..., channels]`.
    scale: The value of code 1, float64 `[channels]`, at least 0.
  """

  codes: np.ndarray
  scale: np.ndarray


class Misfit(NamedTuple):
  """The reason why a kernel has no such form."""

  expected: str
  got: Any


def misfit(kernel: Any) -> Misfit | None:
  """Return why a kernel cannot be computed in integers, or None if it can.

  Args:
    kernel: An array or a frozen node.

  Returns:
    The reason, or None.
  """
  if not isinstance(kernel, Quantized):
    return Misfit('a quantized kernel', type(kernel).__name__)
  if kernel.inputs is None:
    return Misfit('an input grid', None)
  if kernel.scale.ndim > 1:
    return Misfit('a step a channel or a tensor', kernel.scale.shape)
  if isinstance(kernel, Shifted) and np.any(2 * np.asarray(kernel.zero) % 1):
    return Misfit('a zero point of whole or half codes', kernel.zero)
  return None


def codes(kernel: Quantized) -> Codes:
  """Return a kernel that has no `misfit` as integers times a scale."""
  found = np.asarray(kernel.codes, np.int32)
  scale = np.zeros(found.shape[-1]) + np.asarray(kernel.scale, np.float64)
  if isinstance(kernel, Shifted):
    zero = np.asarray(kernel.zero, np.float64)
    parts = 2 if np.any(zero % 1) else 1  # DoReFa has no code for 0
    found, scale = parts * found - np.int32(parts * zero), scale / parts
  sign = np.sign(scale).astype(np.int32)  # a folded norm may negate a channel
  return Codes(found * sign, np.abs(scale))
