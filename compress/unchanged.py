"""The warning of methods that leave some weights as they are."""

import warnings
from collections.abc import Collection

from compress.errors import shorten
from compress.tree import Path


class UnchangedWarning(UserWarning):
  """A method does not fit some weights, which stay as they are."""


def warn_unchanged(where: str, paths: Collection[Path], why: str) -> None:
  """Say which weights a method has left as they are, if there are any.

  Args:
    where: Name of the method.
    paths: Of the weights.
    why: Why they do not fit, after a colon.
  """
  if paths:
    names = shorten(', '.join(paths), 120)
    warnings.warn(
      f'{where}: left {names} unchanged: {why}.',
      UnchangedWarning,
      stacklevel=2,
    )
