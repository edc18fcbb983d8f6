"""Every byte of a file has a line."""

import pathlib

import numpy as np
import pytest

from tests.runs import TINY, one_shot
from tests.tsukiji.deploy.tsk.test_pack import METHODS, packed
from tests.weight_files import pack_weights
from tsukiji import info
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack


@pytest.mark.parametrize('method', sorted(METHODS))
def test_bytes_sum_to_the_file(method: str) -> None:
  blob = packed(method)
  found = info.lines(blob)
  assert sum(line.bytes for line in found) == len(blob)
  assert sum(line.share for line in found) == pytest.approx(1)
  names = [line.name for line in found]
  assert names[0] == info.HEADER and len(set(names)) == len(names)
  assert {'conv1/kernel', 'dense1/bias'} <= set(names)


def line_of(blob: bytes, name: str) -> info.Line:
  return next(line for line in info.lines(blob) if line.name == name)


def test_lines_say_what_was_done() -> None:
  plain = line_of(packed('dense'), 'dense1/kernel')
  assert (plain.method, plain.bits) == ('', 32)
  full = line_of(packed('int8'), 'dense1/kernel')
  assert (full.method, full.bits) == ('Quantized', 8)
  assert full.shape == plain.shape and full.bytes < plain.bytes / 2
  binary = lower(TINY, one_shot(TINY, 'binary.xnor(ends=True)'))
  signs = line_of(pack.pack(*binary), 'fc/kernel')
  assert (signs.method, signs.bits) == ('Signed of Binarized', 1)


def test_text_of_a_file_is_no_markup(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  params = {'[/x]': {'[bold]w\x1b[2J': np.zeros(2, np.float32)}}
  meta = {'network': 'net\x1b]0;owned\x07', 'recipe': '[/]\u202e\nint8'}
  blob = pack_weights(params, meta)
  path = tmp_path / '[red]net[bold].tsk'
  path.write_bytes(blob)
  assert info.main([str(path)]) == 0
  out = capsys.readouterr().out
  assert '[red]net[bold].tsk: net]0;owned, [/] int8' in out.replace('\n', ' ')
  assert '[/x]/[bold]w[2J' in out
  assert not {'\x1b', '\x07', '\u202e'} & {*out}
  assert info.main(['none\x1b[31m']) == 2
  assert '\x1b' not in capsys.readouterr().err


def test_it_is_a_command(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  blob = packed('prune int8')
  path = tmp_path / 'net.tsk'
  path.write_bytes(blob)
  assert info.main([str(path)]) == 0
  out = capsys.readouterr().out
  assert 'conv1/kernel' in out and 'Quantized' in out
  last = out.strip().splitlines()[-1].split()
  assert last == ['sum', f'{len(blob):,}', '100.0']
  path.write_bytes(blob[:-1])
  for args, message in (
    ([], 'expected files'),
    ([str(path)], 'damaged'),
    (['none.tsk'], 'none.tsk'),
  ):
    assert info.main(args) == 2
    line = capsys.readouterr().err
    assert message in line and line.count('\n') == 1
