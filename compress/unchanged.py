"""The warning of methods that do not change some weights."""

import warnings
from collections.abc import Collection

from compress.errors import shorten
from compress.tree import Path


class UnchangedWarning(UserWarning):
  """A method does not apply to some weights, which it has not changed."""


def warn_unchanged(where: str, paths: Collection[Path], why: str) -> None:
  """Warn of weights that a method has not changed, if there are any.

  Args:
    where: Name of the method.
    paths: Paths of the weights.
    why: The reason, as the end of a sentence.
  """
  if paths:
    names = shorten(', '.join(paths), 120)
    warnings.warn(
      f'{where}: left {names} unchanged: {why}.',
      UnchangedWarning,
      stacklevel=2,
    )
