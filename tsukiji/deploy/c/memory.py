"""Places of buffers in the scratch memory of a C file."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import SIZES, Buffer

ALIGNED = 16  # bytes


class Memory(NamedTuple):
  """Where buffers lie.

  Attributes:
    offsets: Bytes from the beginning, by the name of a buffer.
    bytes: Of all.
  """

  offsets: Mapping[str, int]
  bytes: int


def memory(steps: Sequence[Step], outside: Sequence[Buffer]) -> Memory:
  """Return places such that buffers that live at once do not overlap.

  Args:
    steps: In their order.
    outside: Buffers that the caller gives.
  """
  lives = _lives(steps)
  loops = [step.attrs['loop'] for step in steps if 'loop' in step.attrs]
  parts = [buffer for loop in loops for buffer in loop.slices]
  for buffer in (*outside, *parts):
    lives.pop(buffer, None)
  placed: list[tuple[int, int, tuple[int, int]]] = []
  offsets: dict[str, int] = {}
  for buffer in sorted(lives, key=lambda x: -room(x)):
    life = lives[buffer]
    at = 0
    for begin, end, other in sorted(placed):
      together = life[0] <= other[1] and other[0] <= life[1]
      if together and begin < at + room(buffer) and at < end:
        at = end
    placed.append((at, at + room(buffer), life))
    offsets[buffer.name] = at
  return Memory(offsets, max((end for _, end, _ in placed), default=0))


def room(buffer: Buffer) -> int:
  """Return the bytes of a buffer.

  >>> room(Buffer('v', 'float', 3))
  16
  """
  return -(-buffer.size * SIZES[buffer.kind] // ALIGNED) * ALIGNED


def _lives(steps: Sequence[Step]) -> dict[Buffer, tuple[int, int]]:
  """Return the first and the last step that needs each buffer."""
  found: dict[Buffer, tuple[int, int]] = {}
  for i, step in enumerate(steps):
    for buffer in (*step.sources, step.buffer):
      first, _ = found.get(buffer, (i, i))
      found[buffer] = first, i
  return found
