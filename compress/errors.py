"""Checks of arguments, and the messages of their errors."""


def shorten(text: str, width: int) -> str:
  """Return a text on one line, its middle left out where it is too long.

  >>> shorten('prune.weights(0.9)', 13)
  'prun ... 0.9)'
  """
  line = ' '.join(text.split())
  if len(line) <= width:
    return line
  start = (width - 4) // 2
  return f'{line[:start]} ... {line[start + 5 - width :]}'
