"""What networks at least cost: exact counts, and files that are not smaller."""

import pytest

from tests.runs import one_shot, start
from tests.tsukiji.models.test_zoo import counted
from tsukiji.deploy.c.source import source
from tsukiji.deploy.passes.lower import lower
from tsukiji.experiments import row
from tsukiji.measure import bounds, cost
from tsukiji.models import student_zoo, zoo
from tsukiji.models.spec import Spec


def net(**sizes: object) -> Spec:
  return zoo.build('student', (8, 8, 1), 10, **sizes)


@pytest.mark.parametrize('shape', [(8, 8, 1), (16, 1, 3), (1, 1, 13)], ids=str)
@pytest.mark.parametrize('block', student_zoo.BLOCKS)
def test_macs_are_those_of_the_graph(
  block: str, shape: tuple[int, int, int]
) -> None:
  spec = zoo.build('student', shape, 10, block=block, blocks=1, hidden=4)
  found = bounds.least(spec)
  assert found['macs'] == cost.macs(spec)
  assert 0.7 * counted(spec) < found['params'] < counted(spec)
  assert found['flash'] == 4 * found['params']
  assert found['bytes'] == 4 * found['params'] + bounds.FILE


@pytest.mark.parametrize(
  ('method', 'bits', 'count'),
  [
    ('quantize.int8()', 8 * 0.7, 1.0),
    ('quantize.lsq(2, 8) >> distill.kd(4.0)', 2 * 0.7, 1.0),
    ('share.kmeans(16)', 4 * 0.7, 1.0),
    ('prune.weights(0.9, schedule=cubic(0.0, 0.6))', 32 * 0.7 * 0.1, 1.0),
    ('prune.weights(0.5) >> quantize.int8()', 8 * 0.7 * 0.7 * 0.5, 1.0),
    ('prune.filters(macs=0.5) >> quantize.int8()', 8 * 0.7 / 4, 0.25),
    ('quantize.lsq()', 0.7, 1.0),
    # What is not known has no bound.
    ('quantize.auto(4.0)', 0.0, 0.0),
    ('package.module:function(0.9) >> quantize.int8()', 0.0, 0.0),
  ],
)
def test_recipes_have_their_part(
  method: str, bits: float, count: float
) -> None:
  dense, found = bounds.least(net()), bounds.least(net(), method)
  rest = bounds.FILE * bool(bits)
  assert found['bytes'] == pytest.approx(dense['params'] * bits / 8 + rest)
  assert found['params'] == pytest.approx(count * dense['params'])
  assert found['macs'] == pytest.approx(count * dense['macs'])


@pytest.mark.parametrize('bits', [0, 3, 8])
@pytest.mark.parametrize(
  'method',
  ['', 'quantize.int8()', 'quantize.lsq(2, 8)', 'prune.weights(0.9)'],
)
def test_files_are_not_smaller(method: str, bits: int) -> None:
  spec = net()
  variables = one_shot(spec, method) if method else start(spec)
  least, made = (
    bounds.least(spec, method, bits),
    source(*lower(spec, variables)),
  )
  assert least['flash'] <= made.weight_bytes
  done = row.Trained(spec, variables, 0.0, float_bits=bits)
  assert least['bytes'] <= len(row.packed(done, {'recipe': method}))
