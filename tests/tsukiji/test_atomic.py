"""A file is complete or unchanged."""

import pathlib

import pytest

from tsukiji.atomic import replacing


def test_a_file_and_its_folders_are_made(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'a' / 'b' / 'file'
  for content in (b'first', b'second'):
    with replacing(path) as file:
      file.write(content)
    assert path.read_bytes() == content
  assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_draft(
  tmp_path: pathlib.Path,
) -> None:
  path = tmp_path / 'file'
  path.write_bytes(b'old')
  with pytest.raises(RuntimeError), replacing(path) as file:
    file.write(b'half')
    raise RuntimeError
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_an_os_error(
  tmp_path: pathlib.Path,
) -> None:
  (tmp_path / 'file').touch()
  with pytest.raises(OSError), replacing(tmp_path / 'file' / 'below'):
    pass
