"""What is stored: codes about a zero, groups, half floats, and their files."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.channels.sliced import Sliced
from compress.method import Ctx
from compress.quantize import affine, integer_codes
from compress.quantize.half import half
from compress.quantize.integer_codes import Quantized, Shifted
from compress.quantize.uniform import uniform
from tests.weight_files import pack_weights
from tsukiji.deploy.tsk import pack

W = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
GAIN = jnp.array([1.0, 2.0, -4.0, 0.5, 0.0])  # exact in binary


def frozen(text: str, w: np.ndarray = W) -> Any:
  """Return a weight as one of the kinds that are stored."""
  method = {
    'tensor': uniform(4, per='tensor'),
    'channel': uniform(4),
    'groups': uniform(4, per=5),
    'shifted': uniform(4, symmetric=False),
    'shifted tensor': uniform(9, per='tensor', symmetric=False),
    'shifted groups': uniform(4, per=5, symmetric=False),
    'float16': half(),
    'bfloat16': half('bfloat16'),
  }[text]
  return tree.freeze(method.init({'w': jnp.asarray(w)}, Ctx()))['w']


KINDS = [
  *('tensor', 'channel', 'groups', 'shifted', 'shifted tensor'),
  *('shifted groups', 'float16', 'bfloat16'),
]


@pytest.mark.parametrize('kind', KINDS)
def test_masks_and_gains_are_exact(kind: str) -> None:
  node = frozen(kind)
  dense = node.decode()
  mask = W > 0
  zeroed = node.apply_mask(mask)
  np.testing.assert_array_equal(zeroed.decode(), np.where(mask, dense, 0))
  assert type(zeroed) is type(node)
  np.testing.assert_array_equal(
    node.scale_channels(GAIN).decode(), dense * GAIN
  )


@pytest.mark.slow
@pytest.mark.parametrize('axis', range(4))
@pytest.mark.parametrize('kind', KINDS)
def test_codes_are_spread_among_zeros(kind: str, axis: int) -> None:
  keep, size = np.arange(W.shape[axis])[::2], W.shape[axis]
  node = frozen(kind, np.take(W, keep, axis)).scale_channels(jnp.float32(2.0))
  wide = node.scatter(keep, axis, size)
  if 'groups' in kind and axis < 3:
    assert wide is None
    return
  want = np.zeros(W.shape, np.float32)
  np.moveaxis(want, axis, 0)[keep] = np.moveaxis(node.decode(), axis, 0)
  np.testing.assert_array_equal(wide.decode(), want)


@pytest.mark.parametrize('kind', KINDS)
def test_files_keep_every_bit(kind: str) -> None:
  node = frozen(kind)
  for x in (node, node.scale_channels(GAIN)):
    blob = pack_weights({'w': x})
    again = pack.unpack(blob).variables['params']['w']
    assert type(again) is type(x)
    np.testing.assert_array_equal(again.decode(), x.decode())


def test_files_keep_what_is_left_of_groups() -> None:
  node = frozen('groups', W[:, :, :1])
  part = Sliced(node, jnp.array([1]), 2, 2)
  frozen_part = tree.freeze({'w': part})['w']
  assert isinstance(frozen_part, Sliced)  # groups cannot be spread
  again = pack.unpack(pack_weights({'w': part}))
  found = tree.decode(again.variables['params'])['w']
  np.testing.assert_array_equal(found, tree.decode({'w': part})['w'])


@pytest.mark.parametrize('bits', [2, 3, 4, 8])
@pytest.mark.parametrize('symmetric', [True, False])
def test_codes_take_their_bits_in_a_file_or_fewer(
  bits: int, symmetric: bool
) -> None:
  w = np.random.default_rng(1).uniform(-1, 1, size=(256, 64))
  node = uniform(bits, per='tensor', symmetric=symmetric).init(
    {'w': jnp.float32(w)}, Ctx()
  )
  rows = pack.sections(pack_weights(node))
  found = next(row for row in rows if row.path == 'params/w/codes')
  assert found.bits_per_weight <= bits + 0.01


def test_between_two_codes_there_is_no_zero() -> None:
  between = Shifted(
    jnp.ones((2, 3), jnp.int8), jnp.ones(3), None, 2, jnp.float32(0.5)
  )
  assert between.decode().tolist() == [[0.5] * 3] * 2
  assert between.apply_mask(jnp.ones((2, 3), bool)) is None
  assert between.scatter(jnp.arange(2), 0, 4) is None


def test_codes_stay_in_their_width() -> None:
  w = jnp.asarray(W)
  for bits, width in ((8, jnp.int8), (9, jnp.int16)):
    for symmetric in (True, False):
      found = affine.quantize(w, bits, 'channel', None, symmetric)
      node = integer_codes.stored(found, None, bits)
      assert node.codes.dtype == width
      assert type(node) is (Quantized if symmetric else Shifted)
      np.testing.assert_array_equal(node.decode(), affine.dequantize(*found))
