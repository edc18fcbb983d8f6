"""The best config of a search as a config file."""

import pathlib
import pprint
import textwrap
from collections.abc import Sequence

from ml_collections import ConfigDict

from tsukiji import atomic

FILE = '''"""{title}: what a search has found.

{notes}

Run it with

  python main.py --config={path}
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
  """Return the config."""
  del arg
  return ConfigDict(
{values}
  )
'''


def write(path: pathlib.Path, config: ConfigDict, notes: Sequence[str]) -> None:
  """Write a config file.

  Args:
    path: The file.
    config: A config without ranges.
    notes: Sentences on the origin of its values.
  """
  plain = config.copy_and_resolve_references().to_dict()
  plain['task'] = {'search': 'train', 'study': 'compress'}[config.task]
  values = pprint.pformat(plain, width=74, sort_dicts=False)
  text = FILE.format(
    title=' '.join(config.title.replace('"', "'").split()) or 'Experiment',
    notes='\n'.join(textwrap.fill(note, 80) for note in notes),
    path=path,
    values='\n'.join(f'    {line}' for line in values.splitlines()),
  )
  with atomic.replacing(path) as file:
    file.write(text.encode())
