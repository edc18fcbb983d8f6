"""Floats of fewer bits are the nearest ones, and files become shorter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress.quantize.half import stored
from tests.runs import TINY, one_shot
from tsukiji.deploy.artefact import forward
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.passes.round_floats import rounded
from tsukiji.deploy.tsk import coding, pack

FLOATS = hnp.arrays(
  np.float32, 7, elements=st.floats(width=32, allow_subnormal=False)
)


@given(FLOATS, st.integers(1, 24))
def test_numbers_change_by_half_of_their_last_bit(
  x: np.ndarray, bits: int
) -> None:
  y = np.asarray(rounded(x, bits), np.float64)
  finite = np.isfinite(x)
  np.testing.assert_array_equal(y[~finite], x[~finite])
  large = np.abs(x) > 2.0**127  # rounding up would leave float32
  wide = np.float64(x[finite])
  assert np.all(np.abs(y[finite] - wide) <= np.abs(wide) * 2.0**-bits)
  near = finite & ~large
  fraction = np.frexp(y[near])[0] * 2.0**bits
  np.testing.assert_array_equal(fraction, np.rint(fraction))


def test_eight_bits_are_those_of_brain_floats() -> None:
  x = jnp.linspace(-3, 3, 999)
  want = x.astype(jnp.bfloat16).astype(jnp.float32)
  assert np.array_equal(rounded(x, 8), want)


def test_all_bits_change_nothing() -> None:
  x = jnp.float32([0.1, -1e30, 0.0])
  assert np.array_equal(rounded(x, 24), x)


def test_codes_and_narrower_floats_stay() -> None:
  node = stored(jnp.bfloat16([0.1, 0.3]))  # whose bits are integers
  kept = {'codes': jnp.int8([7, -3]), 'node': node}
  same = jax.tree.map(np.array_equal, rounded(kept, 2), kept)
  assert all(jax.tree.leaves(same))
  assert rounded(jnp.float16([0.1]), 4).dtype == jnp.float16


@pytest.mark.parametrize('bits', [0, 25])
def test_other_bits_are_refused(bits: int) -> None:
  with pytest.raises(ValueError, match='bits from 1 to 24'):
    rounded({}, bits)


def test_files_are_shorter_and_outputs_nearly_the_same() -> None:
  graph, weights = lower(TINY, one_shot(TINY, 'quantize.lsq(4, 8)'))
  few = rounded(weights, 8)
  sizes = [len(pack.pack(graph, x)) for x in (weights, few)]
  assert sizes[1] < sizes[0] - 20
  images = np.random.default_rng(0).random((99, *TINY.input_shape), np.float32)
  want, got = (forward(graph, x)(images) for x in (weights, few))
  assert np.std(want - got) < 0.02 * np.std(want)


def test_scales_and_biases_take_eleven_bits() -> None:
  x = np.float32(np.random.default_rng(0).normal(0, 0.1, 400))
  assert len(coding.encode(rounded(x, 8))) < 400 * 11 / 8
