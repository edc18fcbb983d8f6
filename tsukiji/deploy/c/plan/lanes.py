"""Steps for 8 examples at once: one more axis behind all others.

Each number of a buffer becomes 8, those of the examples, side by side: a
vector. Codes in fours become 8 fours.
"""

from collections.abc import Collection

import numpy as np

from tsukiji.deploy.c.plan import fours
from tsukiji.deploy.c.plan.steps import Step, Tail
from tsukiji.deploy.c.plan.values import Buffer, Const, Expr, Load, Value

EXAMPLES = 8
KINDS = {'along', 'product', 'reduce', 'store'}  # of steps that can be so


def in_fours(steps: Collection[Step]) -> set[str]:
  """Return the buffers that hold codes in fours."""
  return {
    x.buffer.name
    for step in steps
    if step.attrs.get('fours')
    for x in step.reads
    if isinstance(x, Load)
  }


def spread(places: np.ndarray, is_four: bool = False) -> np.ndarray:
  """Return places of all examples.

  >>> spread(np.array([2]))[0, :3], spread(np.array([5]), True)[0, :3]
  (array([16, 17, 18]), array([33, 37, 41]))
  """
  lane = np.arange(EXAMPLES, dtype=np.int32)
  places = places[..., None]
  if not is_four:
    return places * np.int32(EXAMPLES) + lane
  four, own = np.divmod(places, np.int32(fours.SIZE))
  return (four * np.int32(EXAMPLES) + lane) * np.int32(fours.SIZE) + own


def wide(buffer: Buffer) -> Buffer:
  """Return a buffer of all examples."""
  return buffer._replace(size=EXAMPLES * buffer.size)


def lifted(step: Step, coded: Collection[str]) -> Step:
  """Return a step for 8 examples.

  Args:
    step: For one example; its kind is one of `KINDS`.
    coded: Names of buffers that hold codes in fours.
  """
  done: dict[int, Value] = {}

  def visit(x: Value) -> Value:
    if id(x) not in done:
      if isinstance(x, Load):
        places = spread(x.places, x.buffer.name in coded)
        done[id(x)] = Load(wide(x.buffer), places, x.kind)
      elif isinstance(x, Const):
        shape = (*x.array.shape, EXAMPLES)
        done[id(x)] = Const(np.broadcast_to(x.array[..., None], shape), x.kind)
      else:
        args = tuple(map(visit, x.args))
        done[id(x)] = Expr(x.op, args, x.kind, x.attrs)
    return done[id(x)]

  def end(tail: Tail) -> Tail:
    return tail._replace(
      sums=wide(tail.sums),
      before=visit(tail.before),
      pooled=None if tail.pooled is None else wide(tail.pooled),
      after=None if tail.after is None else visit(tail.after),
    )

  is_product = step.kind == 'product'
  reads = tuple(
    x._replace(buffer=wide(x.buffer))
    if is_product and isinstance(x, Load)
    else visit(x)
    for x in step.reads
  )
  return step._replace(
    buffer=wide(step.buffer),
    places=spread(step.places, step.buffer.name in coded),
    reads=reads,
    attrs={**step.attrs, 'examples': EXAMPLES},
    tail=None if step.tail is None else end(step.tail),
  )
