"""Widths by layer: the budget is kept, and sensitive layers get more bits."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import allocation, recipe, tree
from compress.method import Ctx, only
from compress.quantize import mixed_precision
from compress.quantize.fake_quant import FakeQuantized, GridConfig
from compress.quantize.mixed_precision import Budget
from compress.quantize.uniform import uniform
from tests.runs import TINY, calibrated, start

CHOICES = (2, 4, 8)


def widths(text: str, ctx: Ctx | None = None) -> dict[str, int]:
  """Return the bits that a recipe gives each weight."""
  params = start(TINY)['params']
  method = recipe.parse(f'quantize.auto({text}, choices={CHOICES})')
  nodes = method.init(params, ctx or calibrated(TINY))
  return {p: n.bits for p, n in tree.find(FakeQuantized, nodes).items()}


def test_the_choice_is_the_best_of_all() -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  paths = ('conv/kernel', 'fc/kernel')
  sizes = [36, 108]
  loss_sum = allocation.sensitivity(
    ctx,
    params,
    dict.fromkeys(paths, (8, 4, 2)),
    lambda path, w, bits: FakeQuantized(w, None, bits),
  )
  for bits in (2.0, 3.0, 4.0, 5.0, 7.9, 8.0):
    fits = [
      pick
      for pick in itertools.product(range(3), repeat=2)
      if sum(n * (8, 4, 2)[i] for n, i in zip(sizes, pick, strict=True))
      <= bits * sum(sizes)
    ]

    def total(pick: tuple[int, ...]) -> float:
      return sum(
        float(loss_sum[p][i]) for p, i in zip(paths, pick, strict=True)
      )

    found = widths(f'bits={bits}')
    chosen = tuple((8, 4, 2).index(found[p]) for p in paths)
    assert chosen in fits
    assert total(chosen) <= min(map(total, fits)) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize('sensitivity', ['energy', 'fisher', 'trace'])
def test_every_sensitivity_keeps_the_budget(sensitivity: str) -> None:
  found = widths(f'bits=4.0, sensitivity="{sensitivity}"')
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
  want = uniform(8, 5, clip='mse').init(params, ctx)
  for path, node in tree.find(FakeQuantized, want).items():
    other = tree.paths(found)[path]
    np.testing.assert_array_equal(node.clip_ratio, other.clip_ratio)
    np.testing.assert_array_equal(node.inputs.high, other.inputs.high)
    assert node.bits == other.bits == 8


COSTS = {'conv/kernel': (3.0, 1.0), 'fc/kernel': (1.0, 0.5)}  # floats, integers


def timing(ctx: Ctx, costs: dict[str, tuple[float, float]] = COSTS) -> Ctx:
  """Return a context with a clock that sums what each layer takes."""
  assert ctx.probe is not None

  def clock(params: Any) -> float:
    held = tree.paths(params)
    return sum(x[tree.is_node(held[path])] for path, x in costs.items())

  return ctx._replace(probe=ctx.probe._replace(milliseconds=clock))


@pytest.mark.parametrize(
  ('ms', 'integers'),
  [
    (4.0, set()),
    (3.99, {'fc/kernel'}),
    (2.0, {'conv/kernel'}),
    (1.99, {'conv/kernel', 'fc/kernel'}),
  ],
)
def test_a_time_determines_how_many_layers_are_integers(
  ms: float, integers: set[str]
) -> None:
  text = f'quantize.auto(ms={ms}, activation_bits=6, choices=(3, 5, 16))'
  ctx = timing(calibrated(TINY))
  nodes = recipe.parse(text).init(start(TINY)['params'], ctx)
  found = tree.find(FakeQuantized, nodes)
  assert {*found} == integers
  assert {node.bits for node in found.values()} <= {5}
  assert {node.inputs.bits for node in found.values()} <= {6}


def test_the_most_sensitive_layer_stays_float() -> None:
  params = {'a': jnp.ones((4, 4)), 'b': jnp.array([[1.0, 0.3, 0.2, 0.1]] * 4)}
  given = jnp.array([-1.0, 1.0])
  ctx = timing(calibrated(TINY), dict.fromkeys(params, (2.0, 1.0)))
  ctx = ctx._replace(stats=dict.fromkeys(params, given))
  method = mixed_precision.auto(
    ms=3.0, activation_bits=8, choices=(3,), sensitivity='energy', per='tensor'
  )
  assert {*tree.find(FakeQuantized, method.init(params, ctx))} == {'a'}


def test_a_time_that_nothing_takes_is_refused() -> None:
  method = mixed_precision.auto(ms=1.4, activation_bits=8)
  params, ctx = start(TINY)['params'], calibrated(TINY)
  with pytest.raises(ValueError, match=r'at least 1.5 ms, .*, got 1.4'):
    method.init(params, timing(ctx))
  with pytest.raises(ValueError, match='a probe that measures time, got none'):
    method.init(params, ctx)


def test_only_has_a_budget_of_its_own() -> None:
  method = only('fc/kernel', mixed_precision.auto(bits=4.0, choices=CHOICES))
  nodes = method.init(start(TINY)['params'], calibrated(TINY))
  assert [n.bits for n in tree.find(FakeQuantized, nodes).values()] == [4]


def test_sensitive_layers_get_more_bits() -> None:
  params = {'a': jnp.ones((4, 4)), 'b': jnp.array([[1.0, 0.3, 0.2, 0.1]] * 4)}
  budget = Budget('bits', 5.0, (2, 8), 'energy')
  config = GridConfig(per='tensor')
  assert mixed_precision.allocation(params, Ctx(), budget, config) == {
    'a': 2,
    'b': 8,
  }


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('choices=(4,)', 'expected one budget of bits, size, bops, ms, got None'),
    ('bits=4, size=0.1', 'expected one budget of bits, size, bops, ms, got'),
    ('ms=0.2', r'expected choices and activation_bits up to 8 with ms, got'),
    ('ms=0.2, activation_bits=9', r'expected choices and activation_bits'),
    ('ms=0.2, choices=(16,), activation_bits=8', r'expected choices and act'),
    ('ms=0.0, activation_bits=8', r'expected ms above 0, got 0.0'),
    ('bits=33', r'expected bits in \(0, 32\], got 33'),
    ('size=0.0', r'expected size in \(0, 1\], got 0.0'),
    ('bits=4, choices=(0, 4)', 'expected choices from 2 to 16, got 0'),
    ('bits=4, choices=()', 'expected choices of widths'),
    (
      'bits=4, sensitivity="guess"',
      'expected a sensitivity of energy, fisher, loss',
    ),
    ('bits=4, per="row"', "expected per='tensor'"),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=f'quantize.auto: {message}'):
    recipe.parse(f'quantize.auto({text})')


def test_budgets_that_nothing_fits_are_refused() -> None:
  with pytest.raises(
    ValueError, match='expected bits of at least 2, .* got 1.5'
  ):
    widths('bits=1.5')
  ctx = calibrated(TINY)
  assert ctx.probe is not None
  blind = ctx._replace(probe=ctx.probe._replace(sites={}))
  with pytest.raises(ValueError, match='conv/kernel: expected a weight with'):
    widths('bops=0.5', blind)


def test_sensitivity_needs_data() -> None:
  with pytest.raises(ValueError, match='expected calibration data'):
    mixed_precision.auto(bits=4.0).init(start(TINY)['params'], Ctx())
  nodes: Any = mixed_precision.auto(bits=4.0, sensitivity='energy').init(
    start(TINY)['params'], Ctx()
  )
  assert tree.find(FakeQuantized, nodes)
