"""The benchmark of `init`: every method has a row, and rows are readable."""

import pytest

from benchmarks import init
from compress import recipe
from tests.samples import SAMPLES


@pytest.mark.parametrize('text', init.RECIPES)
def test_recipes_are_current(text: str) -> None:
  recipe.parse(text)  # an earlier name warns, and a warning is an error


def test_every_method_with_an_init_is_measured() -> None:
  # The others only add to the loss, or restrict a method.
  losses = 'distill.', 'regularize.'
  methods = {x for x in SAMPLES if not x.startswith(losses)} - {'only'}
  measured = {text.partition('(')[0] for text in init.RECIPES}
  assert methods - measured == set()


def test_rows_say_what_is_known() -> None:
  assert init.line('a()', {'refused': 'too small'}) == (
    '| `a()` | - | - | too small |'
  )
  row = {'seconds': 61.26, 'peak': 2.5e9, 'said': ['left x unchanged']}
  assert init.line('b(1)', row) == '| `b(1)` | 61.3 | 2.50 | left x unchanged |'
