"""Which parts of a C file are for which processors."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

COMMENT = re.compile(r'/\*.*?\*/', re.DOTALL)


class Sections(NamedTuple):
  """Definitions, in their order.

  Attributes:
    shared: That two programs use.
    first: That the first program alone uses.
    second: Likewise.
  """

  shared: list[str]
  first: list[str]
  second: list[str]


def sections(
  texts: Mapping[str, str], first: Iterable[str], second: Iterable[str]
) -> Sections:
  """Return the definitions that two programs need.

  Args:
    texts: Definitions by name, each after those that it uses.
    first: Lines of the first program.
    second: Likewise.

  >>> texts = {'a': 'int a;', 'b': 'int b = a;', 'c': 'int c;', 'd': 'int d;'}
  >>> sections(texts, ['b'], ['a + c'])
  Sections(shared=['int a;'], first=['int b = a;'], second=['int c;'])
  """
  one, other = (_needed(texts, lines) for lines in (first, second))
  return Sections(
    [text for name, text in texts.items() if name in one & other],
    [text for name, text in texts.items() if name in one - other],
    [text for name, text in texts.items() if name in other - one],
  )


def _needed(texts: Mapping[str, str], lines: Iterable[str]) -> set[str]:
  """Return the names that a program uses, also through others."""
  found, todo = set[str](), [*lines]
  while todo:
    text = COMMENT.sub('', todo.pop())
    new = ({*re.findall(r'[A-Za-z_]\w*', text)} & texts.keys()) - found
    found |= new
    todo += [texts[name] for name in new]
  return found
