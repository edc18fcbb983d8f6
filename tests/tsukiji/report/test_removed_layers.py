"""Sentences on removed layers."""

from typing import Any

from tsukiji.report.removed_layers import removed

CONV = {'name': 'conv1', 'outputs': 32, 'weights': 800, 'nonzero': 800}
FC = {'name': 'fc', 'outputs': 10, 'weights': 2000, 'nonzero': 2000}
DENSE = {'network': 'n', 'recipe': 'dense', 'role': 'reference'}


def row(recipe: str, *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
  return {'network': 'n', 'recipe': recipe, 'layers': list(layers), **more}


def test_removed_layers_are_listed_once_per_recipe() -> None:
  dense = {**DENSE, 'layers': [CONV, FC], 'seed': 0}
  sparse = {**FC, 'nonzero': 100}
  rows = [
    dense,
    {**dense, 'seed': 1},
    row('sparse', CONV, sparse, seed=0),
    row('sparse', CONV, {**FC, 'nonzero': 90}, seed=1),
    row('flat', FC),
    row('grid', {**CONV, 'nonzero': 400}, FC, family='quantize'),
    row('random', CONV, sparse, role='control_random'),
    {'network': 'n', 'recipe': 'unknown'},
  ]
  assert removed(rows) == [
    'sparse: fc 2,000 -> 100 weights',
    'flat: conv1 gone',
  ]


def test_what_a_layer_is_made_of_and_remarks_are_listed() -> None:
  made = {**FC, 'remark': '2,000 -> 125 numbers, circulant/16'}
  depth = {'name': 'depth', 'outputs': 1, 'weights': 25, 'nonzero': 25}
  rows = [{**DENSE, 'layers': [CONV, FC]}, row('new', CONV, depth, made)]
  assert removed(rows) == [
    'new: fc 2,000 -> 125 numbers, circulant/16; depth new, 25 weights'
  ]


def test_networks_are_distinguished() -> None:
  rows = []
  for network in ('one', 'two'):
    rows.append({**DENSE, 'network': network, 'layers': [CONV]})
    half = {**CONV, 'outputs': 16, 'nonzero': 400}
    rows.append(row('half', half) | {'network': network})
  text = 'conv1 32 -> 16 outputs, 800 -> 400 weights'
  assert removed(rows) == [f'half (one): {text}', f'half (two): {text}']


def test_nothing_is_listed_without_a_reference() -> None:
  assert removed([]) == []
  assert removed([row('half', CONV)]) == []
