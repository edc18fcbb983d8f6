"""The laboratory: networks, data, training, measuring, deploying.

Config files are written with `from tsukiji import settings`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from tsukiji.config import settings as settings

__all__ = ['settings']


def __getattr__(name: str) -> Any:
  """Import `settings` lazily, so that start-up is fast."""
  if name == 'settings':
    return importlib.import_module('tsukiji.config.settings')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
