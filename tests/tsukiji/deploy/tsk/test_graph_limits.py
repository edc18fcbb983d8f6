"""A file that loads can be called."""

import copy
import pathlib
from typing import Any

import numpy as np
import pytest

from compress import tree
from tests.fuzz import edits
from tests.tsukiji.deploy.tsk import kinds
from tsukiji.deploy import artefact
from tsukiji.deploy.tsk import pack
from tsukiji.graph.capture import capture
from tsukiji.graph.nodes import Graph

SEEDS = {'s': edits.seeds()[-1], 'g': edits.seeds()[0]}  # layers, a graph
BIASES = {'s': ('fc', 'bias'), 'g': ('other/bias',)}
GRIDS = {k: x for k, x in kinds.every(8).items() if x.transforms_input}
REFUSED = pytest.raises(ValueError, match='whose inputs their nodes transform')


def _with_grid(seed: edits.Seed, *place: str) -> bytes:
  """Return a file in which an array is a weight of rounded inputs."""
  fields = copy.deepcopy(seed.fields)
  inner = fields['v']['params']
  *outer, last = place
  for key in outer:
    inner = inner[key]
  inputs = {'': 'Inputs', 'low': 'f4', 'high': 'f4', 'bits': 8}
  codes = inner[last].replace('f4', 'i1')
  grid = {'': 'Quantized', 'codes': codes, 'scale': 'f4', 'bits': 3}
  inner[last] = {**grid, 'inputs': inputs}
  return edits.sealed(fields, seed.parts)


def _graph(node: Any, added: bool) -> tuple[Graph, int]:
  """Return a network that adds or multiplies a weight, and its inputs."""
  w = np.asarray(tree.decode({'w': node})['w'])

  def network(params: Any, x: Any) -> Any:
    return x[:, :, None] + params['w'] if added else x @ params['w']

  one = np.ones((1, len(w)), np.float32)
  return capture(network, {'w': w}, one), len(w)


@pytest.mark.parametrize('kind', SEEDS)
def test_grids_of_biases_are_refused(kind: str, tmp_path: pathlib.Path) -> None:
  file = tmp_path / 'x.tsk'
  file.write_bytes(_with_grid(SEEDS[kind], *BIASES[kind]))
  with REFUSED:
    artefact.load(file)


def test_constants_are_arrays(tmp_path: pathlib.Path) -> None:
  fields = copy.deepcopy(SEEDS['g'].fields)
  name = next(iter(fields['v']['constants']))
  node = {'': 'Binarized', 'signs': 'b1 8 8', 'scale': 'f4 8'}
  fields['v']['constants'][name] = node
  file = tmp_path / 'x.tsk'
  file.write_bytes(edits.sealed(fields, SEEDS['g'].parts))
  with pytest.raises(ValueError, match='expected constants that are arrays'):
    artefact.load(file)


@pytest.mark.parametrize('name', GRIDS)
def test_grids_of_products_are_loaded_and_called(
  name: str, tmp_path: pathlib.Path
) -> None:
  graph, inputs = _graph(GRIDS[name], added=False)
  file = tmp_path / 'x.tsk'
  file.write_bytes(pack.pack(graph, {'params': {'w': GRIDS[name]}}))
  some = np.ones((2, inputs), np.float32)
  assert artefact.load(file)(some).shape == (2, 8)


@pytest.mark.parametrize('name', GRIDS)
def test_grids_of_sums_are_not_packed(name: str) -> None:
  graph, _ = _graph(GRIDS[name], added=True)
  with REFUSED:
    pack.pack(graph, {'params': {'w': GRIDS[name]}})
