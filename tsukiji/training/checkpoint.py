"""Checkpoints: Orbax folders of named arrays, restored strictly or refused."""

import pathlib
import re
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from compress import tree
from compress.errors import shorten

T = TypeVar('T')


def named(state: Any) -> dict[str, np.ndarray]:
  """Return every array of a tree by its full path, as numpy."""
  flat, _ = jax.tree_util.tree_flatten_with_path(state)
  return {tree.join(path): np.asarray(leaf) for path, leaf in flat}


def save(folder: pathlib.Path, step: int, state: Any) -> None:
  """Write a checkpoint, then remove the previous one.

  Args:
    folder: Where the checkpoints of one run live.
    step: Number of this checkpoint; larger is newer.
    state: Any tree of arrays.

  Raises:
    OSError: If it cannot be written, as where the disk is full.
  """
  try:
    with _manager(folder, create=True) as manager:
      args = ocp.args.StandardSave(named(state))
      manager.save(step, args=args, force=True)
  except Exception as e:  # tensorstore reports a full disk as a ValueError
    raise OSError(
      f'checkpoint {folder}: expected a place to write to, got '
      f'{_reason(e)}. Free space; the checkpoint before it is kept.'
    ) from e


def restore(folder: pathlib.Path, like: T) -> T | None:
  """Read the newest checkpoint into a tree of the same shape.

  Args:
    folder: Where the checkpoints of one run live.
    like: A tree whose structure, shapes and dtypes the checkpoint must have.

  Returns:
    The tree, as numpy arrays; None if there is no checkpoint.

  Raises:
    ValueError: If the checkpoint is damaged or of another network, method or
      optimizer; the message names the first difference.
  """
  if not folder.is_dir():
    return None
  wanted = named(like)
  try:
    with _manager(folder, create=False) as manager:
      step = manager.latest_step()
      if step is None:
        return None
      args = ocp.args.StandardRestore(_shapes(manager.item_metadata(step).tree))
      found = manager.restore(step, args=args)
  except Exception as e:  # Orbax raises many kinds for a damaged folder
    raise ValueError(
      f'checkpoint {folder}: expected an intact checkpoint, got '
      f'{type(e).__name__}. Remove the folder to start this run again.'
    ) from e
  _check(folder, wanted, found)
  leaves = [np.asarray(found[name]) for name in wanted]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _reason(error: Exception) -> str:
  """Return the system's words for a failure, from the end of a long message."""
  found = re.findall(
    r'OS error[^\]\n]*|\[Errno[^\n]*|RESOURCE_EXHAUSTED', f'{error}'
  )
  return shorten(found[-1] if found else f'{error}', 80)


def _manager(folder: pathlib.Path, create: bool) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    max_to_keep=1, create=create, enable_async_checkpointing=False
  )
  handler = ocp.StandardCheckpointHandler()  # else metadata cannot be read
  return ocp.CheckpointManager(
    folder.absolute(), options=options, item_handlers=handler
  )


def _shapes(metadata: dict[str, Any]) -> dict[str, np.ndarray]:
  """Return empty arrays of the stored shapes, to restore onto the host."""
  return {
    name: np.empty(meta.shape, meta.dtype) for name, meta in metadata.items()
  }


def _check(
  folder: pathlib.Path,
  wanted: dict[str, np.ndarray],
  found: dict[str, np.ndarray],
) -> None:
  for name in sorted(wanted.keys() | found.keys()):
    expected, got = _kind(wanted.get(name)), _kind(found.get(name))
    if expected != got:
      raise ValueError(
        f'checkpoint {folder}: expected {name} to be {expected}, got {got}. '
        'It belongs to another network, method or optimizer; use another '
        'workdir.'
      )


def _kind(x: np.ndarray | None) -> str:
  return 'absent' if x is None else f'{x.dtype}{list(x.shape)}'
