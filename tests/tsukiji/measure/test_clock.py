"""Times of networks: positive, and measured once."""

import pathlib
from typing import Any

from compress.method import Ctx
from compress.quantize.uniform import uniform
from tests.runs import NETWORKS, TINY, start
from tsukiji.deploy.passes.lower import lower
from tsukiji.measure import clock
from tsukiji.models.spec import Spec


def test_a_network_takes_time() -> None:
  spec, variables = lower(TINY, start(TINY))
  assert 0 < clock.milliseconds(spec, variables) < 1e3


def test_another_engine_tells_of_time() -> None:
  spec, variables = lower(TINY, start(TINY))
  assert 0 < clock.milliseconds(spec, variables, ('onnxruntime',)) < 1e3


def test_kinds_of_weights_and_engines_are_told_apart(
  tmp_path: pathlib.Path,
) -> None:
  spec, variables = lower(TINY, start(TINY))
  coded = uniform(4).init(variables['params'], Ctx())
  others = lower(spec, {**variables, 'params': coded})[1]
  names = iter('abcd')
  asks = [
    clock.cached(tmp_path, engines, lambda *_: float(ord(next(names))))
    for engines in (('jax',), ('jax', 'onnxruntime'))
  ]
  found = [ask(spec, x) for ask in asks for x in (variables, others)]
  assert found == [97, 98, 99, 100]
  assert [ask(spec, x) for ask in asks for x in (variables, others)] == found


def test_each_network_is_measured_once(tmp_path: pathlib.Path) -> None:
  asked: list[str] = []

  def measure(
    spec: Spec, variables: dict[str, Any], engines: tuple[str, ...]
  ) -> float:
    asked.append(spec.name)
    return len(asked) / 3

  for _ in range(2):  # as in a run that is continued
    ask = clock.cached(tmp_path / 'times', ('jax',), measure)
    found = [ask(spec, {}) for spec in NETWORKS.values()]
    assert found == [(i + 1) / 3 for i in range(len(NETWORKS))]
  assert len(asked) == len(NETWORKS)
