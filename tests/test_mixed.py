"""Widths by layer: the budget is kept, and what hurts most is spared."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import allocate, mixed, quantize, recipe, tree
from compress.method import Ctx, only
from compress.mixed import Budget
from compress.quantize import How, Quantizing
from tests.runs import TINY, calibrated, start

CHOICES = (2, 4, 8)


def widths(text: str, ctx: Ctx | None = None) -> dict[str, int]:
  """Return the bits that a recipe gives each weight."""
  params = start(TINY)['params']
  method = recipe.parse(f'quantize.auto({text}, choices={CHOICES})')
  nodes = method.init(params, ctx or calibrated(TINY))
  return {p: n.bits for p, n in tree.find(Quantizing, nodes).items()}


def test_the_choice_is_the_best_of_all() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  paths = ('conv/kernel', 'fc/kernel')
  sizes = [36, 108]
  harm = allocate.sensitivity(
    ctx,
    params,
    dict.fromkeys(paths, (8, 4, 2)),
    lambda path, w, bits: Quantizing(w, None, bits),
  )
  for bits in (2.0, 3.0, 4.0, 5.0, 7.9, 8.0):
    fits = [
      pick
      for pick in itertools.product(range(3), repeat=2)
      if sum(n * (8, 4, 2)[i] for n, i in zip(sizes, pick, strict=True))
      <= bits * sum(sizes)
    ]

    def total(pick: tuple[int, ...]) -> float:
      return sum(float(harm[p][i]) for p, i in zip(paths, pick, strict=True))

    found = widths(f'bits={bits}')
    chosen = tuple((8, 4, 2).index(found[p]) for p in paths)
    assert chosen in fits
    assert total(chosen) <= min(map(total, fits)) + 1e-6


@pytest.mark.parametrize('damage', ['energy', 'fisher', 'trace'])
def test_every_damage_keeps_the_budget(damage: str) -> None:
  found = widths(f'bits=4.0, damage="{damage}"')
  assert 36 * found['conv/kernel'] + 108 * found['fc/kernel'] <= 4 * 144
  assert max(found.values()) > 2


def test_budgets_agree_where_they_say_the_same() -> None:
  want = widths('bits=4.0')
  assert widths('size=0.125') == want
  found = widths('bops=0.0625, activation_bits=8')  # 1024 / 16: 8 bits times 8
  assert set(found.values()) == {8}
  found = widths('bops=0.125')
  uses = {'conv/kernel': 36 * 9, 'fc/kernel': 108}
  spent = sum(uses[p] * bits * 32 for p, bits in found.items())
  assert spent <= 0.125 * 1024 * sum(uses.values())


def test_the_rest_is_the_grid() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  text = 'quantize.auto(bits=8.0, activation_bits=5, clip="mse", choices=(8,))'
  found = recipe.parse(text).init(params, ctx)
  want = quantize.grid(8, 5, clip='mse').init(params, ctx)
  for path, node in tree.find(Quantizing, want).items():
    other = tree.paths(found)[path]
    np.testing.assert_array_equal(node.share, other.share)
    np.testing.assert_array_equal(node.inputs.high, other.inputs.high)
    assert node.bits == other.bits == 8


def test_only_has_a_budget_of_its_own() -> None:
  method = only('fc/kernel', mixed.auto(bits=4.0, choices=CHOICES))
  nodes = method.init(start(TINY)['params'], calibrated(TINY))
  assert [n.bits for n in tree.find(Quantizing, nodes).values()] == [4]


def test_what_hurts_more_gets_more_bits() -> None:
  params = {'a': jnp.ones((4, 4)), 'b': jnp.array([[1.0, 0.3, 0.2, 0.1]] * 4)}
  budget = Budget('bits', 5.0, (2, 8), 'energy')
  how = How(per='tensor')
  assert mixed.allocation(params, Ctx(), budget, how) == {'a': 2, 'b': 8}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('choices=(4,)', 'expected one budget of bits, size, bops, got None'),
    ('bits=4, size=0.1', 'expected one budget of bits, size, bops, got'),
    ('ms=0.2', r'expected a budget of bits, size or bops, got ms=0.2. .*ms='),
    ('bits=33', r'expected bits in \(0, 32\], got 33'),
    ('size=0.0', r'expected size in \(0, 1\], got 0.0'),
    ('bits=4, choices=(0, 4)', 'expected choices from 2 to 16, got 0'),
    ('bits=4, choices=()', 'expected choices of widths'),
    ('bits=4, damage="guess"', 'expected a damage of energy, fisher, loss'),
    ('bits=4, per="row"', "expected per='tensor'"),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=f'quantize.auto: {message}'):
    recipe.parse(f'quantize.auto({text})')


def test_budgets_that_nothing_fits_are_refused() -> None:
  with pytest.raises(ValueError, match='got bits=1.5. It takes at least 2'):
    widths('bits=1.5')
  ctx = calibrated(TINY)
  assert ctx.probe is not None
  blind = ctx._replace(probe=ctx.probe._replace(uses={}))
  with pytest.raises(ValueError, match='conv/kernel: expected a weight whose'):
    widths('bops=0.5', blind)


def test_damage_needs_data() -> None:
  with pytest.raises(ValueError, match='expected calibration data'):
    mixed.auto(bits=4.0).init(start(TINY)['params'], Ctx())
  nodes: Any = mixed.auto(bits=4.0, damage='energy').init(
    start(TINY)['params'], Ctx()
  )
  assert tree.find(Quantizing, nodes)
