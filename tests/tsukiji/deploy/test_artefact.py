"""A file is all a fresh process needs; what does not fit is refused.

`python -m tests.tsukiji.deploy.test_artefact` writes the golden file anew: only
with a new version of the format.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import dataflow as grids
from compress import tree
from compress.quantize.integer_codes import Inputs, Quantized
from tests import runs
from tests.layer_files import pack_layers
from tests.tsukiji.deploy.tsk.test_pack import (
  SPEC,
  compressed,
  dense,
  edited,
  packed,
)
from tsukiji.deploy import artefact
from tsukiji.deploy.tsk import pack
from tsukiji.graph.nodes import Input
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate

GOLDEN = Path(__file__).parents[2] / 'golden' / 'format1.tsk'
ROOT = Path(__file__).parents[3]


def some_images(spec: Spec, batch: int) -> np.ndarray:
  """Return bytes that no random generator decides."""
  shape = (batch, *spec.input_shape)
  return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
  place = tmp_path_factory.mktemp('artefacts') / 'deep' / 'net.tsk'
  artefact.save(place, packed('prune int8'))
  return place


@pytest.fixture(scope='module')
def net(path: Path) -> artefact.Artefact:
  return artefact.load(path)


def test_a_file_runs_as_the_network_it_holds(net: artefact.Artefact) -> None:
  variables = compressed('tsukijinet2021', 'prune int8')
  images = some_images(SPEC, 3)
  run = evaluate.applied(SPEC, variables['batch_stats'])

  @jax.jit
  def apply(x: jax.Array) -> Any:
    params = variables['params']
    return grids.apply(run, params, x), run(tree.decode(params), x)

  want, without_grids = apply(images.astype(np.float32))
  got = net(images)
  assert (got.shape, got.dtype) == ((3, 5), jnp.float32)
  np.testing.assert_array_equal(got, want)
  assert np.abs(np.asarray(got - without_grids)).max() > 0


def test_a_fresh_process_gives_the_same_bits(
  path: Path, net: artefact.Artefact
) -> None:
  program = (
    'import sys, numpy as np; from tsukiji.deploy import artefact;'
    'net = artefact.load(sys.argv[1]);'
    'shape = (2, *net.inputs[0].shape);'
    'x = (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8);'
    'print(np.asarray(net(x.reshape(shape))).tobytes().hex())'
  )
  run = subprocess.run(
    [sys.executable, '-c', program, str(path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  want = np.asarray(net(some_images(SPEC, 2)))
  assert run.stdout.strip() == want.tobytes().hex()


def test_an_artefact_says_what_it_is(
  path: Path, net: artefact.Artefact
) -> None:
  assert net.bytes == path.stat().st_size
  assert net.name == SPEC.name
  assert net.inputs == (Input(SPEC.input_shape),)
  assert net.meta == {'note': 'x', 'network': SPEC.name}
  kernel = net.variables['params']['dense1/kernel']
  assert isinstance(kernel, Quantized)
  assert isinstance(kernel.inputs, Inputs)


@pytest.mark.parametrize('dtype', ['i4', 'i8', 'f2', 'f4', 'f8', 'bfloat16'])
def test_any_real_type_will_do(net: artefact.Artefact, dtype: str) -> None:
  images = some_images(SPEC, 2) % 64
  want = np.asarray(net(images))
  np.testing.assert_array_equal(net(images.astype(jnp.dtype(dtype))), want)


@pytest.mark.parametrize('batch', [0, 1])
def test_any_batch_will_do(net: artefact.Artefact, batch: int) -> None:
  assert net(jnp.asarray(some_images(SPEC, batch))).shape == (batch, 5)


@pytest.mark.parametrize(
  'images, got',
  [
    (np.zeros((10, 10, 1), 'f4'), r'ndarray \[10, 10, 1\] of float32'),
    (np.zeros((2, 10, 10), 'f4'), r'ndarray \[2, 10, 10\]'),
    (np.zeros((2, 10, 9, 1), 'f4'), r'ndarray \[2, 10, 9, 1\]'),
    (np.zeros((2, 10, 10, 1), 'c8'), 'of complex64'),
    (np.zeros((2, 10, 10, 1), bool), 'of bool'),
    (np.full((2, 10, 10, 1), 'a'), 'of <U1'),
    (np.full((2, 10, 10, 1), None), 'of object'),
    ([[1], [2, 3]], 'list'),
    ('image.png', 'str'),
    (None, 'NoneType'),
  ],
)
def test_other_images_are_refused(
  net: artefact.Artefact, images: Any, got: str
) -> None:
  want = r'expected images \[batch, 10, 10, 1\] of real numbers, got .*'
  with pytest.raises(ValueError, match=want + got):
    net(images)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
  file = tmp_path / 'net.tsk'
  kernel = 'v/params/dense1/kernel'
  for blob in (
    edited('int3', f'{kernel}/codes', 'i1 8 16', None),
    edited('dense', kernel, 'f4 8 16', None),
    edited('dense', 'v/params/dense1', {'kernel': 'f4 136'}, None),
    edited('int8', f'{kernel}/inputs/bits', 2**24, None),
    edited('int3', 's/layers', [], None),
    pack_layers(SPEC, {'params': dense('tsukijinet2021')['params']}),
    pack_layers(SPEC, {**dense('tsukijinet2021'), 'params': {}}),
  ):
    artefact.save(file, blob)
    with pytest.raises(ValueError, match='net.tsk: artefact: expected'):
      artefact.load(file)


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
  for place, text in (
    (tmp_path, 'expected a file'),
    (tmp_path / 'none.tsk', 'none.tsk: artefact: expected a file'),
    (Path('/dev/zero'), 'expected a file'),
    (Path(__file__), 'begins with TSK'),
  ):
    with pytest.raises(ValueError, match=text):
      artefact.load(place)


def test_no_more_is_read_than_a_file_announces(
  tmp_path: Path, path: Path
) -> None:
  long = tmp_path / 'long.tsk'
  long.write_bytes(path.read_bytes())
  with long.open('r+b') as file:
    file.truncate(2**33)  # takes no space, but would if read
  with pytest.raises(ValueError, match='expected a file of at most .* bytes'):
    artefact.read(long)
  short = tmp_path / 'short.tsk'
  short.write_bytes(path.read_bytes()[:12])
  with pytest.raises(ValueError, match='checksum'):
    artefact.load(short)


def test_a_file_announces_what_a_call_takes(
  path: Path, net: artefact.Artefact
) -> None:
  variables = pack.unpack(path.read_bytes()).variables
  decoded = jax.tree.leaves(jax.eval_shape(tree.decode, variables))
  assert net.weight_bytes == sum(4 * x.size for x in decoded)
  assert net.example_bytes > 4 * sum(SPEC.input_shape)


def test_a_file_is_written_atomically(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  place = tmp_path / 'net.tsk'
  artefact.save(place, b'old')

  def full(fd: int) -> None:
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr('os.fsync', full)
    with pytest.raises(ValueError, match='net.tsk: .* got No space left'):
      artefact.save(place, b'new')
  assert place.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [place]
  artefact.save(str(place), b'new')
  assert place.read_bytes() == b'new'
  with pytest.raises(ValueError, match='expected a place to write to'):
    artefact.save(place / 'below.tsk', b'new')


def test_a_network_compiles_ahead_of_time(net: artefact.Artefact) -> None:
  run = artefact.forward(net.network, net.variables)
  shape = jax.ShapeDtypeStruct((2, *SPEC.input_shape), jnp.float32)
  compiled = run.lower(shape).compile()
  images = some_images(SPEC, 2)
  got = compiled(jnp.asarray(images, jnp.float32))
  np.testing.assert_array_equal(got, net(images))


def golden_network() -> tuple[Spec, dict[str, Any]]:
  """Return a network with every node, every coding and no random number."""
  spec = Spec(
    name='golden',
    input_shape=(5, 6, 1),
    layers=(
      sp.Standardise(mean=(100.0,), std=(50.0,)),
      sp.Conv(name='conv1', features=4, kernel=(2, 3)),
      sp.Norm(name='norm1'),
      sp.Act(fn='relu'),
      sp.Flatten(),
      sp.Dense(name='dense1', features=72),
      sp.Act(fn='tanh'),
      sp.Dense(name='dense2', features=3, bias=False),
    ),
  )

  def wave(*shape: int) -> np.ndarray:
    turn = np.arange(np.prod(shape)) * 7919 % 1009 / 1009
    return (turn * 2 - 1).astype(np.float32).reshape(shape)

  rare = np.arange(64 * 72).reshape(64, 72) % 23 == 0
  loud = np.where(np.arange(72) % 2, 6, 60)
  codes = (wave(64, 72) * loud * rare).astype(np.int8)
  inputs = Inputs(np.float32(-0.5), np.float32(3.0), 6)
  small = (wave(72, 3) * 3).astype(np.int8)
  params = {
    'conv1': {'bias': wave(4), 'kernel': wave(2, 3, 1, 4)},
    'norm1': {'bias': np.zeros(4, np.float32), 'scale': 1 + wave(4)},
    'dense1': {
      'bias': np.zeros(72, np.float32),
      'kernel': Quantized(codes, wave(72) / 60, inputs, 8),
    },
    'dense2': {'kernel': Quantized(small, 1.5 + wave(3), None, 3)},
  }
  stats = {'norm1': {'mean': wave(4), 'var': 1.5 + wave(4)}}
  return spec, {'params': params, 'batch_stats': stats}


LOGITS = [
  [2.018604278564453, 2.5097904205322266, -3.0860419273376465],
  [0.120364248752594, 1.7766673564910889, -7.698794364929199],
]


LOGITS_3 = [
  [0.0655752643942833, -0.10275032371282578, 0.28165048360824585],
  [0.22152453660964966, -0.128963440656662, 0.5907008647918701],
]


def test_the_golden_file_still_reads() -> None:
  read = pack.unpack(GOLDEN.read_bytes())
  spec, variables = golden_network()
  assert read.network == spec
  assert read.meta == {'format': 1}
  assert jax.tree.structure(read.variables) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, read.variables, variables)
  got = artefact.load(GOLDEN)(some_images(spec, 2))
  np.testing.assert_allclose(got, LOGITS, rtol=1e-4, atol=1e-5)


def test_a_file_of_format_3_still_reads() -> None:
  read = artefact.load(GOLDEN.with_name('format3.tsk'))
  assert read.meta == {'format': 3}
  got = read(runs.images(runs.TINY, 2))
  np.testing.assert_allclose(got, LOGITS_3, rtol=1e-4, atol=1e-5)


def test_the_golden_file_takes_its_known_size() -> None:
  blob = GOLDEN.read_bytes()
  again = pack_layers(*golden_network(), {'format': 1}, coded_floats=False)
  arrays = [row[:-1] for row in pack.sections(blob)[1:]]
  assert [row[:-1] for row in pack.sections(again)[1:]] == arrays


if __name__ == '__main__':
  blob = pack_layers(*golden_network(), {'format': 1}, coded_floats=False)
  artefact.save(GOLDEN, blob)
