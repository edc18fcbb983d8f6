"""Inception modules: their paths, their forms, and that every pass takes them.

Numbers of filters are those of Szegedy+ 2015, table 1.
"""

import pathlib
from typing import Any

import numpy as np
import onnxruntime
import pytest

from compress import tree
from compress.channels import sliced
from tests.runs import images, one_shot, run
from tsukiji.deploy import artefact, export
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.deploy.tsk import pack
from tsukiji.measure import cost
from tsukiji.models import drop_layers, zoo
from tsukiji.models import spec as sp
from tsukiji.models.inception_zoo import binary_googlenet, googlenet_small
from tsukiji.models.spec import Branch, Layer, Spec

PLAIN: dict[str, Any] = {'shortcuts': False, 'activation': 'hard_tanh'}
TINY: dict[str, Any] = {'widths': (8, 16)}
FORMS = {
  'float': googlenet_small((8, 8, 1), 3, **TINY),
  'plain': binary_googlenet((8, 8, 1), 3, **TINY, **PLAIN),
  'modern': binary_googlenet((8, 8, 1), 3, **TINY),
}


def branches(spec: Spec) -> list[Branch]:
  """Return the modules, or the sums around them."""
  return [x for x in spec.layers if isinstance(x, Branch)]


def filters(layers: tuple[Layer, ...]) -> list[tuple[int, int]]:
  """Return the filters and sides of the convolutions of a path."""
  return [(x.features, x.kernel[0]) for x in layers if isinstance(x, sp.Conv)]


def kinds(layers: tuple[Layer, ...]) -> str:
  """Return the first letters of the layers in order."""
  return ''.join(type(layer).__name__[0] for layer in layers)


def test_a_module_has_the_filters_of_the_paper() -> None:
  spec = googlenet_small((28, 28, 1), 10, widths=(256,))
  (module,) = branches(spec)
  assert [filters(path) for path in module.paths] == [
    [(64, 1)],
    [(96, 1), (128, 3)],
    [(16, 1), (32, 5)],
    [(32, 1)],
  ]
  names = [
    path[0].name for path in module.paths if isinstance(path[0], sp.Conv)
  ]
  ends = ('1x1', '3x3_reduce', '5x5_reduce')
  assert names == [f'inception1_1_{end}' for end in ends]


@pytest.mark.parametrize('name', ['googlenet_small', 'binary_googlenet'])
def test_modules_end_stages_with_pools(name: str) -> None:
  spec = zoo.build(name, (14, 14, 1), 10, widths=(8, 16, 32, 32), modules=2)
  found = [x for x in sp.walk(spec) if isinstance(x.layer, Branch)]
  found = [x for x in found if x.layer in spec.layers]
  sides = [(x.before[0], x.after[0], x.after[2]) for x in found]
  assert sides == [
    *((14, 14, 8), (14, 7, 8)),
    *((7, 7, 16), (7, 3, 16)),
    *((3, 3, 32), (3, 1, 32)),
    *((1, 1, 32), (1, 1, 32)),
  ]


def test_a_module_without_a_pool_has_as_many_outputs() -> None:
  first, last = branches(googlenet_small((8, 8, 1), 3, widths=(16,), modules=2))
  assert [filters(path)[-1] for path in first.paths] == [(6, 1), (8, 3), (2, 5)]
  assert [filters(path)[-1] for path in last.paths] == [
    *((4, 1), (8, 3), (2, 5)),
    (2, 1),
  ]
  assert kinds(last.paths[0]) == 'CNAP'
  assert kinds(last.paths[3]) == 'PCNA'


def test_signs_have_means_and_norms_behind_pools() -> None:
  module = branches(FORMS['plain'])[0]
  assert [kinds(path) for path in module.paths] == [
    *('CPNA', 'CNACPNA', 'CNACPNA'),
    'PCNA',
  ]
  assert module.paths[3][0] == sp.Pool(kind='mean')
  acts = [s.layer for s in sp.walk(FORMS['plain']) if kinds((s.layer,)) == 'A']
  assert set(acts) == {sp.Act(fn='hard_tanh')}
  assert kinds(FORMS['plain'].layers[-3:]) == 'GDN'


def test_the_modern_form_has_identities_around_modules() -> None:
  spec = FORMS['modern']
  assert kinds(spec.layers) == 'CNPBPBPGDN'  # P: PReLU
  (first, around), (_, wider) = (x.paths for x in branches(spec))
  (module,) = first
  assert isinstance(module, Branch) and module.merge == 'concat'
  # A sum takes what norms give: activations come behind it.
  assert [kinds(path) for path in module.paths] == [
    *('CPN', 'CNPCPN', 'CNPCPN'),
    'PCN',
  ]
  assert around == (sp.Pool(kind='mean'),)
  assert kinds(wider) == 'PB'
  acts = [s.layer for s in sp.walk(spec) if isinstance(s.layer, sp.PReLU)]
  assert len(acts) == 1 + 2 * 3 and all(x.shifts for x in acts)


def test_modules_are_units() -> None:
  for spec in FORMS.values():
    names = [unit.name for unit in drop_layers.units(spec)]
    assert names == ['stem', 'inception1_1', 'inception2_1', 'dense']
  deep = googlenet_small((8, 8, 1), 3, widths=(8,), modules=2)
  assert drop_layers.removable(deep) == {'inception1_1': ()}


@pytest.mark.parametrize(
  ('name', 'sizes', 'said'),
  [
    ('googlenet_small', {'widths': (8, 12)}, r'multiples of 8, got \(8, 12\)'),
    ('binary_googlenet', {'widths': (4,)}, r'multiples of 8, got \(4,\)'),
    ('binary_googlenet', {'widths': (16, 24)}, 'a multiple of 16, got 24'),
    ('binary_googlenet', {'activation': 'rleu'}, "rprelu, got 'rleu'"),
    ('googlenet_small', {'widths': ()}, r'multiples of 8, got \(\)'),
    ('googlenet_small', {'modules': 0}, 'modules from 1, got 0'),
  ],
)
def test_refusals(name: str, sizes: dict[str, Any], said: str) -> None:
  with pytest.raises(ValueError, match=said):
    zoo.build(name, (8, 8, 1), 3, **sizes)


def test_norms_without_products_are_on_request() -> None:
  spec = binary_googlenet((8, 8, 1), 3, **TINY, shift=True)
  norms = [s.layer for s in sp.walk(spec) if isinstance(s.layer, sp.Norm)]
  assert norms and all(isinstance(x, sp.ShiftNorm) for x in norms)


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
def test_filters_are_removed_across_paths(form: str) -> None:
  spec = FORMS[form]
  text = 'prune.filters(macs=0.5, multiple=1, score="l1")'
  variables = one_shot(spec, text)
  small_spec, small = shrink(spec, variables)
  assert not tree.find(sliced.Sliced, small['params'])
  assert cost.macs(small_spec) <= cost.macs(spec) / 2
  want, _ = run(spec, variables, 8)
  got, _ = run(small_spec, small, 8)
  np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.slow
@pytest.mark.parametrize(
  ('form', 'text'),
  [
    ('float', 'structured.crelu()'),
    ('float', 'structured.rotate()'),
    ('plain', 'binary.inputs(ends=False) >> binary.weights()'),
    ('modern', 'quantize.uniform(8, 8)'),
  ],
)
def test_files_say_the_same_in_every_format(
  form: str, text: str, tmp_path: pathlib.Path
) -> None:
  spec = FORMS[form]
  variables = one_shot(spec, text)
  path = tmp_path / 'net.tsk'
  artefact.save(path, pack.pack(*lower(spec, variables)))
  done = export.export(path)
  assert not done.missing
  net = artefact.load(path)
  x = np.asarray(images(spec, 5))
  want = np.asarray(net(x))
  session = onnxruntime.InferenceSession(path.with_suffix('.onnx'))
  got = session.run(None, {'images': x})[0]
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
