"""Datasets by name: TFDS, and Debian's copy of Fashion-MNIST.

TensorFlow is not needed to read what was prepared as `array_record` or
`parquet`. It is needed to prepare: TFDS turns arrays into PNG with `tf.io`.
"""

import contextlib
import difflib
import importlib.util
import io
import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tsukiji.data import sensors
from tsukiji.data.readers import Raw, idx, line
from tsukiji.errors import expect

# Suggested where no name is near a misspelled one.
KNOWN = (
  'digits',
  'mnist',
  'fashion_mnist',
  'kmnist',
  'emnist',
  'cifar10',
  'cifar100',
  'svhn_cropped',
)

FASHION_FOLDER = Path('/usr/share/datasets/fashion-mnist')
FASHION_CLASSES = (
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
)
# Of the decompressed files: Debian recompresses them, so the .gz differ.
FASHION_SHA256 = {
  'train-images-idx3-ubyte': (
    'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888'
  ),
  'train-labels-idx1-ubyte': (
    'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9'
  ),
  't10k-images-idx3-ubyte': (
    '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b'
  ),
  't10k-labels-idx1-ubyte': (
    '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34'
  ),
}


def named(name: str, folder: str, looked: str) -> Raw:
  """Read a TFDS dataset: prepared, from Debian's package, or downloaded.

  TensorFlow is not needed to read what was prepared as `array_record` or
  `parquet`. It is needed to prepare: TFDS encodes images with `tf.io`.

  Args:
    name: as TFDS spells it, `name`, `name/config` or `name:version`.
    folder: the TFDS `data_dir`; '' for TFDS's own.
    looked: where else the caller has looked, for error messages.

  Returns:
    The splits `train` and `test`, and class names.

  Raises:
    ValueError: the name is unknown, or the data cannot be had or used.
  """
  with _quiet():
    builder = _builder(name, folder)
    if builder.is_prepared():
      return _read(builder)
    if builder.name == 'fashion_mnist' and FASHION_FOLDER.is_dir():
      raw = idx(FASHION_FOLDER, FASHION_SHA256)
      return raw._replace(classes=FASHION_CLASSES)
    _prepare(builder, looked)
    return _read(builder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Suppress the log lines of TFDS, and the banners it prints on stdout."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(level)


def _builder(name: str, folder: str) -> Any:
  """Return the TFDS builder of `name`."""
  import tensorflow_datasets as tfds  # slow, and few runs need it

  try:
    return tfds.builder(name, data_dir=os.path.expanduser(folder) or None)
  except Exception as error:  # from AssertionError to ModuleNotFoundError
    # Names of the community would be fetched from the network.
    names = tfds.list_builders(with_community_datasets=False)
    raise ValueError(_mistake(name, names, error)) from error


def _mistake(name: str, names: list[str], error: Exception) -> str:
  """Return the error of a name for which TFDS has no builder."""
  base = re.split('[/:]', name)[0]
  if base in names:
    return (
      f'data {name!r}: expected a config and version that TFDS can open, got '
      f'{line(error)}. Correct it, install what is missing, or delete the '
      'folder if it is damaged.'
    )
  near = (
    difflib.get_close_matches(name, ['digits', *sensors.READERS, *names])
    or KNOWN
  )
  what = "'digits', a TFDS name, a folder of IDX files or a path to .npz"
  fix = f'Did you mean {" or ".join(map(repr, near))}?'
  return f'data: expected {what}, got {name!r}. {fix}'


def _keys(builder: Any) -> tuple[str, str]:
  """Return the names of image and label, both of a supported shape."""
  info, where = builder.info, f'data {builder.name!r}'
  keys = info.supervised_keys
  pair = isinstance(keys, tuple) and len(keys) == 2
  fix = 'Choose a dataset of images with one label each, or bring an .npz.'
  ok = pair and all(isinstance(key, str) for key in keys)
  expect(where, ok, 'one input and one label', keys, fix)
  shape = info.features[keys[0]].shape
  ok = len(shape) in (2, 3) and None not in shape
  expect(where, ok, 'inputs of one shape [height, width, ...]', shape, fix)
  return keys


def _read(builder: Any) -> Raw:
  """Decode the splits of a prepared builder, one example after the other."""
  (x, y), where = _keys(builder), f'data {builder.data_path}'
  splits = sorted(builder.info.splits)
  fix = 'Make the splits yourself and bring them as an .npz.'
  ok = {'train', 'test'} <= set(splits)
  expect(where, ok, 'splits train and test', splits, fix)
  names = tuple(getattr(builder.info.features[y], 'names', ()))
  try:
    train, test = builder.as_data_source(['train', 'test'])
    return Raw(*_stack(train, x, y), *_stack(test, x, y), names)
  except Exception as error:  # array_record, PIL and TFDS each raise their own
    fix = 'Delete that folder and prepare it again with TensorFlow installed.'
    raise ValueError(
      f'{where}: expected readable array_record files, got {line(error)}. {fix}'
    ) from error


def _stack(source: Any, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
  """Return the inputs and the labels of all examples of a split."""
  pairs = [(example[x], example[y]) for example in source]
  return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def _prepare(builder: Any, looked: str) -> None:
  """Download and write a dataset, or say everything that could be done."""
  _keys(builder)
  try:
    _prerequisites()
    builder.download_and_prepare(file_format='array_record')
  except Exception as error:  # requests, tensorflow and TFDS: no common base
    raise ValueError(_not_found(builder, looked, error)) from error


def _prerequisites() -> None:
  """Raise what would stop a download, at once.

  TFDS itself downloads first and misses TensorFlow after, and where there is
  no network it retries for more than three minutes.
  """
  if not importlib.util.find_spec('tensorflow'):
    raise ImportError('TFDS writes images with tensorflow: not installed')
  if not urllib.request.getproxies():  # a proxy resolves names by itself
    socket.getaddrinfo('storage.googleapis.com', 443)


def _not_found(builder: Any, looked: str, error: Exception) -> str:
  """Name every place looked in, and every way to mend it."""
  places = [looked, str(builder.data_path)]
  ways = ['`pip install tensorflow` and a network', 'an .npz of your own']
  if builder.name == 'fashion_mnist':
    places.append(str(FASHION_FOLDER))
    ways.insert(0, '`apt-get install dataset-fashion-mnist`')
  return (
    f'data {builder.name!r}: expected it in {", ".join(places)} or by download,'
    f' got nothing ({line(error)}). Any of these helps: {", or ".join(ways)}.'
  )
