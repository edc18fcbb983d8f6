"""A network as one C99 file and its header."""

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsukiji.deploy.c.kernels.choosing import kernel_texts, product
from tsukiji.deploy.c.kernels.nests import indented
from tsukiji.deploy.c.kernels.simple_steps import SIMPLE
from tsukiji.deploy.c.memory import Memory, memory, room
from tsukiji.deploy.c.plan import reading
from tsukiji.deploy.c.plan.handlers import HANDLERS
from tsukiji.deploy.c.plan.planning import Planner
from tsukiji.deploy.c.plan.steps import Step, identity
from tsukiji.deploy.c.plan.values import CODE, SIZES, Buffer, kind_of
from tsukiji.deploy.c.prelude import ALONE, PRELUDE
from tsukiji.deploy.c.tables import Tables, comment, literal
from tsukiji.graph.nodes import Graph, Input

Lines = list[str]
WRITERS: Mapping[str, Callable[[Step, Tables], Lines]] = {
  **SIMPLE,
  'product': product,
}


class Source(NamedTuple):
  """A network in C.

  Attributes:
    name: Of its functions.
    file: Name of its files.
    code: The file `FILE.c`.
    header: The file `FILE.h`.
    input: Shape and type of one example.
    output: Likewise.
    scratch_bytes: Memory that `NAME_run` needs.
    weight_bytes: Constants.
    stack_bytes: Of the sums of a step, at most, on processors without vectors.
    ends_bytes: An input and an output.
    layers: The steps: names, and bytes of their constants and results.
    program: The code without constants: what is alike runs alike.
    is_whole: Whether it is computed in integers.
  """

  name: str
  file: str
  code: str
  header: str
  input: Input
  output: Input
  scratch_bytes: int
  weight_bytes: int
  stack_bytes: int
  ends_bytes: int
  layers: tuple[tuple[str, int, int], ...]
  program: str
  is_whole: bool


def source(
  graph: Graph,
  variables: Mapping[str, Any],
  name: str = 'network',
  is_whole: bool = True,
) -> Source:
  """Return a network as C.

  Args:
    graph: The network, of one input and one output.
    variables: `{'params': ...}` by path: arrays and nodes.
    name: Of its files and functions; what C does not take becomes `_`.
    is_whole: Whether it is computed in integers if it can be.

  Returns:
    The files.

  Raises:
    ValueError: If an operator has no kernel.
  """
  return generated(reading.read(graph, variables, is_whole), name)


def generated(read: reading.Read, name: str) -> Source:
  """Return a network of constants as C; see `source`."""
  file, name = re.sub(r'[^\w. -]', '_', name), identifier(name)
  (taken,) = read.graph.inputs
  ends = (
    Buffer('input', kind_of(taken.dtype), math.prod(taken.shape)),
    Buffer('output', kind_of(read.output.dtype), math.prod(read.output.shape)),
  )
  steps = _planned(read, ends)
  tables, names = Tables('table'), _names(steps)
  places = memory(steps, ends)
  functions, layers = [], []
  for step, given in zip(steps, names, strict=True):
    before = tables.bytes
    functions.append(_function(step, given, tables))
    layers.append((given, tables.bytes - before, room(step.buffer)))
  calls = _calls(steps, names, places)
  sizes = (ends[0].size, ends[1].size, places.bytes, tables.bytes)
  return Source(
    name,
    file,
    _file((name, file), tables, functions, calls, ends),
    _header(name, ends, sizes),
    taken,
    read.output,
    places.bytes,
    tables.bytes,
    max(map(_stack, functions), default=0),
    sum(x.size * SIZES[x.kind] for x in ends),
    tuple(layers),
    '\n'.join((*functions, *calls)),
    read.is_whole,
  )


def _planned(read: reading.Read, ends: tuple[Buffer, Buffer]) -> list[Step]:
  """Return the steps of a network.

  What follows a product says how its result lies, which the choice of its
  kernel depends on: the choices of a first plan are known to the second.
  """
  taken, given = ends
  shape = (1, *read.graph.inputs[0].shape)
  first = identity(taken, shape, taken.kind)
  planar, steps = frozenset[int](), list[Step]()
  for _ in range(2):
    planner = Planner(
      read.graph, read.kinds, [first], read.paths, planar, read.lists
    )
    planner.run(HANDLERS, given)
    steps = [*planner.steps.values()]
    planar = frozenset(map(_planar_node, steps)) - {-1}
  return steps


def _planar_node(step: Step) -> int:
  """Return the node of a product whose rows are stored without gaps, or -1."""
  if step.tail is None or step.places.shape[1] == 1:
    return -1
  near = bool(np.all(np.diff(step.places, axis=1) == 1))
  return int(step.attrs['node']) if near else -1


def _stack(function: str) -> int:
  """Return the bytes of the arrays of a function."""
  found = re.findall(r'^ +(\w+) \w+((?:\[\d+\])+);', function, re.MULTILINE)
  return sum(
    SIZES[kind] * math.prod(map(int, re.findall(r'\d+', sizes)))
    for kind, sizes in found
  )


def identifier(text: str) -> str:
  """Return a text as a name in C.

  >>> identifier('2-layers')
  '_2_layers'
  """
  found = re.sub(r'\W', '_', text, flags=re.ASCII)
  return f'_{found}' if found[:1].isdigit() or not found else found


def _names(steps: Sequence[Step]) -> list[str]:
  """Return the names of the functions of steps, of the weights where any."""
  found: dict[str, None] = {}
  for i, step in enumerate(steps):
    layer = step.path.removesuffix('/kernel')
    name = identifier(layer) if layer else f'{step.kind}_{i}'
    found.setdefault(name if name not in found else f'{name}_{i}')
  return [*found]


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


def _calls(
  steps: Sequence[Step], names: Sequence[str], places: Memory
) -> Lines:
  def pointer(buffer: Buffer, const: str = '') -> str:
    if buffer.name not in places.offsets:
      return buffer.name
    at = places.offsets[buffer.name]
    return f'({const}{buffer.kind} *)(memory + {at})'

  lines = []
  for step, name in zip(steps, names, strict=True):
    args = [pointer(x, 'const ') for x in step.sources]
    args.append(pointer(step.buffer))
    lines.append(f'{name}({", ".join(args)});')
  return lines


def _signature(name: str, ends: tuple[Buffer, Buffer]) -> tuple[str, str]:
  taken, given = ends
  rest = f'const {taken.kind} *input, {given.kind} *output, void *scratch'
  return (
    f'void {name}_run({rest})',
    f'void {name}_run_batch(int n, {rest})',
  )


def _header(
  name: str, ends: tuple[Buffer, Buffer], sizes: tuple[int, ...]
) -> str:
  one, many = _signature(name, ends)
  upper = name.upper()
  guard = f'{upper}_H'
  macros = zip(
    ('INPUT_SIZE', 'OUTPUT_SIZE', 'SCRATCH_BYTES', 'WEIGHT_BYTES'),
    sizes,
    strict=True,
  )
  defines = '\n'.join(f'#define {name}_{key} {n}' for key, n in macros)
  return f"""/* {name}: a network in C99; scratch is aligned as for floats. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

{defines}

#ifdef __cplusplus
extern "C" {{
#endif

/* One example: input [{sizes[0]}] to output [{sizes[1]}]. */
{one};
/* n examples, one after the other in input and output. */
{many};

#ifdef __cplusplus
}}
#endif

#endif
"""


def _file(
  names: tuple[str, str],
  tables: Tables,
  functions: Sequence[str],
  calls: Lines,
  ends: tuple[Buffer, Buffer],
) -> str:
  name, file = names
  one, many = _signature(name, ends)
  uses = '\n'.join(functions)
  helpers = [text for key, text in PRELUDE.items() if f'{key}(' in uses]
  inner = kernel_texts(uses)
  helpers += [ALONE, *inner] if inner else []
  body = '\n'.join(indented(calls))
  memory_line = (
    '  char *const memory = scratch;\n'
    if 'memory +' in body
    else '  (void)scratch;\n'
  )
  parts = [
    f'/* {name}, generated by tsukiji: C99, no dependency. */\n'
    f'#include "{file}.h"\n\n#include <math.h>\n#include <string.h>',
    *helpers,
    tables.text(),
    *functions,
    f'{one} {{\n{memory_line}{body}\n}}',
    f'{many} {{\n  for (int i = 0; i < n; ++i)\n'
    f'    {name}_run(input + (size_t)i * {ends[0].size}, '
    f'output + (size_t)i * {ends[1].size}, scratch);\n}}',
  ]
  return '\n\n'.join(x for x in parts if x) + '\n'
