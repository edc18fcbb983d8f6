"""Steps as functions of a C file, and calls of them."""

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tsukiji.deploy.c.indices import Affine, formula
from tsukiji.deploy.c.kernels.binary_product import pack
from tsukiji.deploy.c.kernels.choosing import product
from tsukiji.deploy.c.kernels.nests import indented
from tsukiji.deploy.c.kernels.simple_steps import SIMPLE
from tsukiji.deploy.c.plan.loops import BEGIN, END, Loop, Slice
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import CODE, SIZES, Buffer
from tsukiji.deploy.c.tables import Tables, comment, literal

Lines = list[str]
MARKS = (BEGIN, END)  # of loops, which are no functions
WRITERS: Mapping[str, Callable[[Step, Tables], Lines]] = {
  **SIMPLE,
  'pack': pack,
  'product': product,
}


class Functions:
  """The functions of a file, each once.

  Attributes:
    tables: The constants that they read.
    texts: By name.
  """

  def __init__(self, tables: Tables) -> None:
    """Begin without functions."""
    self.tables = tables
    self.texts: dict[str, str] = {}

  def add(self, step: Step, name: str) -> str:
    """Add the function of a step if it has one, and return its name.

    A layer may be called `int`, `expf` or like what else the file has: no
    other name begins with `step_`, but of a network, which ends in no digit.
    """
    if step.kind in MARKS:
      return ''
    for n in range(1, len(self.texts) + 2):
      found = f'step_{name}_{n}'
      text = _function(step, found, self.tables)
      if self.texts.setdefault(found, text) == text:
        break
    return found


def names(steps: Sequence[Step]) -> list[str]:
  """Return the names of steps, of the weights where any."""
  found: dict[str, None] = {}
  for i, step in enumerate(steps):
    layer = step.path.removesuffix('/kernel')
    name = identifier(layer) if layer else f'{step.kind}_{i}'
    found.setdefault(name if name not in found else f'{name}_{i}')
  return [*found]


def identifier(text: str) -> str:
  """Return a text as a name in C.

  >>> identifier('2-layers')
  '_2_layers'
  """
  found = re.sub(r'\W', '_', text, flags=re.ASCII)
  return f'_{found}' if found[:1].isdigit() or not found else found


def stack(function: str) -> int:
  """Return the bytes of the arrays of a function."""
  found = re.findall(r'^ +(\w+) \w+((?:\[\d+\])+);', function, re.MULTILINE)
  return sum(
    SIZES[kind] * math.prod(map(int, re.findall(r'\d+', sizes)))
    for kind, sizes in found
  )


def calls(
  steps: Sequence[Step],
  given: Sequence[str],
  places: Mapping[str, int],
  parts: Mapping[str, str],
) -> Lines:
  """Return the calls of functions, in loops where they are in some.

  Args:
    steps: What is called.
    given: Names of the functions.
    places: Of buffers in `memory`, by name.
    parts: Pointers to other buffers, where these are not their names.
  """
  lines: Lines = []
  parts, deep = dict(parts), 0
  for step, name in zip(steps, given, strict=True):
    if step.kind == BEGIN:
      loop: Loop = step.attrs['loop']
      for part, whole in loop.slices.items():
        text = pointer(whole.buffer, places, parts)
        parts[part.name] = text + _moved(whole, loop.name)
      t, end = loop.name, loop.length
      line = f'for (int {t} = 0; {t} < {end}; ++{t}) {{'
      lines.append('  ' * deep + line)
      deep += 1
    elif step.kind == END:
      copies = _carried(step.attrs['loop'], places, parts)
      lines += ['  ' * deep + line for line in copies]
      deep -= 1
      lines.append('  ' * deep + '}')
    else:
      args = [pointer(x, places, parts, 'const ') for x in step.sources]
      args.append(pointer(step.buffer, places, parts))
      lines.append('  ' * deep + f'{name}({", ".join(args)});')
  return lines


def _moved(part: Slice, turn: str) -> str:
  """Return what is added to a pointer for a turn."""
  text = formula(Affine(part.first, (part.step,)), (turn,))
  return '' if text == '0' else f' + {text}'


def _carried(
  loop: Loop, places: Mapping[str, int], parts: Mapping[str, str]
) -> Lines:
  """Return the copies at the end of a turn."""
  return [
    f'memcpy({pointer(to, places, parts)}, '
    f'{pointer(start, places, parts, "const ")}, '
    f'{to.size * SIZES[to.kind]});'
    for to, start in loop.carried
  ]


def pointer(
  buffer: Buffer,
  places: Mapping[str, int],
  parts: Mapping[str, str],
  const: str = '',
) -> str:
  """Return the pointer to a buffer; see `calls`."""
  if buffer.name in parts:
    return parts[buffer.name]
  if buffer.name not in places:
    return buffer.name
  return f'({const}{buffer.kind} *)(memory + {places[buffer.name]})'


def _function(step: Step, name: str, tables: Tables) -> str:
  """Return the function of a step."""
  reads = step.sources
  args = [f'const {x.kind} *restrict {x.name}' for x in reads]
  args.append(f'{step.buffer.kind} *restrict {step.buffer.name}')
  lines = [*_filled(step), *WRITERS[step.kind](step, tables)]
  lines = [re.sub(r'\[\(([^][()]+)\)\]', r'[\1]', line) for line in lines]
  head = textwrap.fill(
    f'static void {name}({", ".join(args)}) {{', 78, subsequent_indent='    '
  )
  note = f'{comment(_note(step))}\n' if step.tail else ''
  return '\n'.join([note + head, *indented(lines), '}'])


def _note(step: Step) -> str:
  before = ' x '.join(map(str, step.reads[0].places.shape))  # type: ignore
  after = ' x '.join(map(str, step.places.shape))
  return f'{step.path or "a product"}: {before} -> {after}'


def _filled(step: Step) -> Lines:
  """Return what fills the borders of a buffer."""
  if step.border is None:
    return []
  buffer = step.buffer
  if step.border == 0 or buffer.kind == CODE:
    count = f'{buffer.size} * sizeof *{buffer.name}'
    return [f'memset({buffer.name}, {int(step.border)}, {count});']
  kind = int if buffer.kind != 'float' else np.float32
  number = literal(kind(step.border), buffer.kind)
  return [
    f'for (int n = 0; n < {buffer.size}; ++n) {buffer.name}[n] = {number};'
  ]
