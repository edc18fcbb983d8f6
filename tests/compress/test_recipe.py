"""Recipes: what the text may say, and what it can never do."""

import functools
import inspect
import json
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compress
from compress import method, recipe, schedule, tree
from compress.method import Ctx, Method
from compress.prune import magnitude
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.uniform import int8, uniform

PARAMS = {
  'conv': {'kernel': jnp.linspace(-1.0, 2.0, 36).reshape(3, 3, 1, 4)},
  'fc': {
    'bias': jnp.ones(3),
    'kernel': jnp.linspace(-3.0, 1.0, 12).reshape(4, 3),
  },
}
STATS = {
  'conv/kernel': jnp.array([0.0, 1.0]),
  'fc/kernel': jnp.array([-2.0, 2.0]),
}


def assert_same(text: str, want: Method) -> None:
  """Compare what a text and a method do to the same parameters."""
  ctx = Ctx(0, 10, jax.random.key(0), None, STATS)
  found = recipe.parse(text)
  for step in (0, 10):
    one, other = (
      m.update(m.init(PARAMS, ctx), ctx._replace(step=step))
      for m in (found, want)
    )
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
  ('text', 'want'),
  [
    ('', method.chain()),
    ('  \n', method.chain()),
    ('quantize.int8()', int8()),
    (' prune.weights( sparsity = 0.5 ) ', magnitude.weights(0.5)),
    (
      'prune.weights(0.5, scope="global", schedule=cubic(end=0.25))',
      magnitude.weights(
        0.5, scope='global', schedule=schedule.cubic(0.0, 0.25)
      ),
    ),
    (
      'prune.weights(0.5, schedule=at_once()) >> quantize.uniform(4, 6)',
      method.chain(magnitude.weights(0.5), uniform(4, 6)),
    ),
    (
      'only("fc/.*", prune.weights(0.75) >> quantize.uniform(3))\n'
      '>> only("conv/kernel", only(".*", quantize.uniform(5)))',
      method.chain(
        method.only(
          'fc/kernel', method.chain(magnitude.weights(0.75), uniform(3))
        ),
        method.only('conv/kernel', uniform(5)),
      ),
    ),
    (
      '(prune.weights(0.1, floor=-0.0)) >> (quantize.int8(momentum=1))',
      method.chain(magnitude.weights(0.1), int8()),
    ),
  ],
)
def test_text_is_read_as_python(text: str, want: Method) -> None:
  assert_same(text.replace('\n>>', ' >>'), want)


@given(st.permutations(range(3)), st.integers(0, 1))
@settings(max_examples=12, deadline=None)
def test_chains_keep_their_order(order: list[int], left: int) -> None:
  steps = ('prune.weights(0.5)', 'quantize.uniform(4)', 'distill.kd()')
  a, b, c = (steps[i] for i in order)
  text = f'({a} >> {b}) >> {c}' if left else f'{a} >> ({b} >> {c})'
  node = recipe.parse(text).init(PARAMS, Ctx())['fc']['kernel']
  outer = magnitude.Masked if order.index(0) < order.index(1) else None
  assert isinstance(node, outer or FakeQuantized)
  assert tree.is_node(node.w)


@pytest.mark.parametrize(
  ('text', 'nearest'),
  [
    ('prune.weigths(0.9)', 'prune.weights'),
    ('quantise.int8()', 'quantize.int8'),
    ('weights(0.9)', 'prune.weights'),
    ('onyl("x", quantize.int8())', 'only'),
    ('prune.weights(0.9, schedule=cubik())', 'cubic'),
  ],
)
def test_typos_get_the_nearest_name(text: str, nearest: str) -> None:
  with pytest.raises(ValueError, match=f"Nearest: '{nearest}'"):
    recipe.parse(text)


@pytest.mark.parametrize(
  'attack',
  [
    '__import__("os").system("touch {}")',
    'open("{}", "w")',
    '(lambda: open("{}", "w"))()',
    '[open("{}", "w") for _ in range(1)]',
    'quantize.int8(momentum=open("{}", "w"))',
    'only("x", exec("open(\'{}\', \'w\')"))',
    'prune.weights.__globals__["tree"].np.savetxt("{}", [1])',
    "prune.weights(0.5, score=f\"{{open('{}', 'w')}}\")",
    'prune.weights(*[open("{}", "w")])',
    'quantize.int8(**dict(momentum=open("{}", "w")))',
    '(x := open("{}", "w"))',
    'quantize.int8() if open("{}", "w") else quantize.int8()',
    'open("{}", "w") >> quantize.int8()',
  ],
)
def test_nothing_is_executed(attack: str, tmp_path: pathlib.Path) -> None:
  target = tmp_path / 'touched'
  with pytest.raises(ValueError, match='recipe'):
    recipe.parse(attack.format(target))
  assert not target.exists()


@pytest.mark.parametrize(
  'text',
  [
    'quantize',
    'quantize.int8',
    'prune.weights(0.5).init',
    '(lambda: 0)()',
    'quantize.int8()()',
    '[quantize.int8()]',
    'quantize.int8() + quantize.int8()',
    'quantize.int8(); quantize.int8()',
    'import os',
    'quantize.int8() >> ',
    '0.9',
    'at_once()',
    'cubic(0.0, 0.5)',
    '3 >> quantize.int8()',
    'quantize.int8() >> cubic()',
    'only("fc/.*", 3)',
    'only("fc/.*", cubic())',
    'only(quantize.int8(), "fc/.*")',
    'only("(", quantize.int8())',
    'prune.weights()',
    'prune.weights(0.5, 0.5)',
    'prune.weights(0.5, sparsity=0.5)',
    'prune.weights(0.5, scop="layer")',
    'prune.weights("0.5")',
    'prune.weights([0.5])',
    'prune.weights({[]: 0.5})',
    'prune.weights(1e999)',
    'prune.weights(0.5, schedule=0.5)',
    'prune.weights(0.5, schedule=prune.weights(0.5))',
    'prune.weights(**{"sparsity": 0.5})',
    'prune.weights(*[0.5])',
    'quantize.uniform(4.0)',
    'quantize.int8(momentum="0.9")',
    'cubic("a", "b")',
    '\0',
    '\ud800',
  ],
)
def test_anything_else_is_refused(text: str) -> None:
  with pytest.raises(ValueError, match='.') as caught:
    recipe.parse(text)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'text',
  [
    ' >> '.join(['quantize.int8()'] * 300),
    ' >> '.join(['quantize.int8()'] * 30_000),
    'only("x", ' * 150 + 'quantize.int8()' + ')' * 150,
    'only("x", ' * 30_000,
    'prune.weights(' + '[' * 5000 + ']' * 5000 + ')',
    '-' * 5000 + '1',
    'a.' * 5000 + 'b()',
    'prune.weights(' + '9' * 5000 + ')',
  ],
)
def test_depth_is_refused_or_read_but_never_crashes(text: str) -> None:
  try:
    made = recipe.parse(text)
  except ValueError as e:
    assert str(e)
  else:
    assert isinstance(made, Method)


words = st.sampled_from(
  [*'()[]:*-,.= \n\\', 'prune.weights', 'quantize.int8', 'only', 'scope']
  + ['>>', '0.5', '"x"', 'lambda']
)


@given(st.one_of(st.text(max_size=30), st.lists(words).map(''.join)))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_method_or_a_value_error(text: str) -> None:
  try:
    made: Any = recipe.parse(text)
  except ValueError:
    return
  assert isinstance(made, Method)


RESULTS = pathlib.Path(__file__).parents[2] / 'results'


def committed() -> list[str]:
  """Return every recipe of the committed results."""
  found = [json.loads(path.read_text()) for path in RESULTS.glob('*.json')]
  rows = [row for x in found if isinstance(x, dict) for row in x['rows']]
  return sorted({row['method'] for row in rows if row.get('method')})


@pytest.mark.parametrize('text', committed())
def test_committed_recipes_still_parse(text: str) -> None:
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    assert isinstance(recipe.parse(text), Method)
  old = {name for name in recipe.RENAMED if f'{name}(' in text}
  said = [str(w.message) for w in caught]
  assert all(w.category is FutureWarning for w in caught)
  for name in old:
    new = recipe.RENAMED[name]
    assert any(f'{name!r} is now {new!r}' in message for message in said)
  assert bool(old) == any(': the name ' in message for message in said)


def test_renamed_names_make_the_same_method() -> None:
  for old, new in recipe.RENAMED.items():
    assert old not in recipe.TABLE
    assert new in recipe.TABLE
  with pytest.warns(FutureWarning, match=r"'quantize.grid' is now 'quantize.u"):
    assert_same('quantize.grid(4)', uniform(4))


def test_renamed_arguments_make_the_same_method(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  name = 'prune.weights'
  monkeypatch.setitem(recipe.RENAMED_ARGUMENTS, (name, 'share'), 'sparsity')
  monkeypatch.setitem(recipe.RENAMED_VALUES, (name, 'scope'), {'all': 'global'})
  want = magnitude.weights(0.5, scope='global')
  with (
    pytest.warns(FutureWarning, match="'share' is now 'sparsity'"),
    pytest.warns(FutureWarning, match="'all' is now 'global'"),
  ):
    assert_same('prune.weights(share=0.5, scope="all")', want)


def test_tables_of_renamed_arguments_name_what_there_is() -> None:
  new = [*recipe.RENAMED_ARGUMENTS.items()]
  for (name, old), argument in new:
    parameters = inspect.signature(recipe.TABLE[name]).parameters
    assert argument in parameters
    assert old not in parameters
  for name, argument in recipe.RENAMED_VALUES:
    assert argument in inspect.signature(recipe.TABLE[name]).parameters


def test_every_name_with_a_dot_is_a_path_in_python() -> None:
  for name, make in recipe.TABLE.items():
    if '.' in name:
      assert functools.reduce(getattr, name.split('.'), compress) is make, name


@pytest.mark.parametrize(
  'text',
  [
    'prune.weigths(0.9)',
    'x' * 50_000 + '()',
    ' >> '.join(['quantize.int8()'] * 3000) + ' >> quantize.int9()',
    'prune.weights(0.9, ' + 'x' * 9999 + '=1)',
    'prune.filters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)',
    'prune.weights(' + '[' * 90 + ']' * 90 + ')',
    'quantize.int8(momentum="' + 'y' * 9999 + '")',
    'a' * 4000 + ':b()',
    'x' * 4000 + ' y',
  ],
)
def test_messages_are_short(text: str) -> None:
  with pytest.raises(ValueError, match='recipe') as caught:
    recipe.parse(text)
  assert len(str(caught.value)) <= 300
  assert '\n' not in str(caught.value)


def half_of_them() -> Method:
  """Return a method from outside the table."""
  return magnitude.weights(0.5)


def untold():  # type: ignore[no-untyped-def]
  """Return a method and do not say so."""
  raise AssertionError


def test_methods_from_outside_are_imported() -> None:
  here = f'{__name__}:half_of_them'
  want = method.chain(magnitude.weights(0.5), uniform(4))
  assert_same(f'{here}() >> quantize.uniform(4)', want)
  assert_same(f'only(".*", {here}()) >> quantize.uniform(4)', want)


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    (f'{__name__}:untold()', 'annotated "-> Method"'),
    (f'{__name__}:missing()', "no attribute 'missing'"),
    (f'{__name__}:half_of_them(3)', 'too many positional'),
    (f'{__name__}:half_of_them', 'expected a method'),
    ('no_such_package.module:f()', 'No module named'),
    ('os:system("exit 1")', 'annotated "-> Method"'),
    ('os:system.__call__("exit 1")', 'annotated "-> Method"|be imported'),
  ],
)
def test_what_cannot_be_imported_is_refused(text: str, said: str) -> None:
  with pytest.raises(ValueError, match=said) as caught:
    recipe.parse(text)
  assert len(str(caught.value)) <= 300


def test_every_row_of_the_table_is_a_documented_function() -> None:
  for name, make in recipe.TABLE.items():
    assert callable(make)
    assert make.__doc__, name
    module, _, attribute = f'{make.__module__}.{make.__name__}'.rpartition('.')
    assert module.startswith('compress.')
    assert name.rpartition('.')[2] == attribute


@pytest.mark.parametrize(
  ('text', 'parts', 'want'),
  [
    ('quantize.int8()', {'a': 1}, 'quantize.int8()'),
    ('{a} >> {b}', {'a': '', 'b': ''}, ''),
    (
      '{a} >> {b}',
      {'a': 'x({n}, {n})', 'b': '{a}', 'n': 2},
      'x(2, 2) >> x(2, 2)',
    ),
    ('x({a})', {'a': 0.123456}, 'x(0.1235)'),
    ("x({'c/kernel': 0.5})", {}, "x({'c/kernel': 0.5})"),
  ],
)
def test_names_in_braces_are_filled(
  text: str, parts: dict[str, Any], want: str
) -> None:
  assert recipe.filled(text, parts) == want


@pytest.mark.parametrize(
  ('text', 'parts', 'said'),
  [
    ('{a} >> {c}', {'a': ''}, "names among a in braces, got 'c'"),
    ('{a}', {}, 'names among none'),
    ('{a}', {'a': '{b}', 'b': '{a}'}, 'parts that do not contain each other'),
  ],
)
def test_names_that_cannot_be_filled_are_errors(
  text: str, parts: dict[str, Any], said: str
) -> None:
  with pytest.raises(ValueError, match=said):
    recipe.filled(text, parts)
