"""What does not fit on a device is refused, with what takes the room."""

import pytest

from tests.tsukiji.deploy.onnx.test_model import SPECS, lowered
from tsukiji.deploy.c import footprint
from tsukiji.deploy.c.footprint import Limits
from tsukiji.deploy.c.source import source


def test_networks_have_to_fit() -> None:
  made = source(*lowered(SPECS['tsukijinet2021']))
  taken = Limits(made.weight_bytes, footprint.ram(made))
  footprint.check(made, taken)
  footprint.check(made, footprint.NO_LIMITS)
  for less in (
    taken._replace(flash=taken.flash - 1),
    taken._replace(ram=taken.ram - 1),
  ):
    with pytest.raises(ValueError, match='config.export.*conv2 [0-9]+') as e:
      footprint.check(made, less)
    assert len(str(e.value)) <= 300


def test_the_table_has_a_line_for_each_step() -> None:
  made = source(*lowered(SPECS['tsukijinet2021']))
  lines = footprint.table(made).splitlines()
  assert len(lines) == len(made.layers) + 2
  assert lines[-1].split() == [
    *('total', str(made.weight_bytes), str(footprint.ram(made)))
  ]
