"""Buffers of a C file share memory, but for those that live at once."""

import hypothesis as hp
import hypothesis.strategies as st
import numpy as np

from tsukiji.deploy.c.memory import memory, room
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.plan.values import Buffer, Load

STEPS = st.lists(
  st.tuples(st.integers(1, 40), st.lists(st.integers(0, 20), max_size=3)),
  min_size=1,
  max_size=12,
)


@hp.given(drawn=STEPS)
def test_living_buffers_do_not_overlap(
  drawn: list[tuple[int, list[int]]],
) -> None:
  buffers = [Buffer(f'v{i}', 'float', n) for i, (n, _) in enumerate(drawn)]
  steps = []
  for i, (size, reads) in enumerate(drawn):
    loads = tuple(
      Load(buffers[j % i], np.zeros(1, np.int32), 'float') for j in reads if i
    )
    steps.append(Step('store', buffers[i], np.arange(size), loads))
  found = memory(steps, ())
  last = {
    buffer: max(
      j
      for j, step in enumerate(steps)
      if buffer == step.buffer or buffer in step.sources
    )
    for buffer in buffers
  }
  for i, one in enumerate(buffers):
    begin = found.offsets[one.name]
    assert begin >= 0 and begin + room(one) <= found.bytes
    for j, other in enumerate(buffers[:i]):
      there = found.offsets[other.name]
      apart = begin + room(one) <= there or there + room(other) <= begin
      assert apart or last[other] < i, (i, j)


def test_the_memory_of_what_is_read_no_more_is_used_again() -> None:
  a, b, c = (Buffer(name, 'float', 100) for name in 'abc')
  spots = np.zeros(1, np.int32)
  steps = [
    Step('store', a, spots),
    Step('store', b, spots, (Load(a, spots, 'float'),)),
    Step('store', c, spots, (Load(b, spots, 'float'),)),
  ]
  assert memory(steps, ()).bytes == 2 * room(a)
