"""Search over Tsukijinet2021 on Fashion-MNIST: hyperparameters that are open.

  python main.py --config=configs/search.py --workdir=runs/search

A Gaussian process and random search, 40 trials of one epoch each and 3
repetitions; then the best network is trained for 16 epochs.
"""

from ml_collections import ConfigDict

import search
from tsukiji import settings


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.default('search')
  config.title = 'Search over Tsukijinet2021 on Fashion-MNIST'
  config.dataset.name = 'fashion_mnist'
  config.dataset.validation = 5000
  config.networks = {'tsukijinet2021': settings.network('tsukijinet2021')}
  vary(config.train, config.networks.tsukijinet2021)
  config.train.epochs = 16
  config.train.augment = ('flip',)
  config.search = settings.searching(
    baselines=('random',), trials=40, seeds=(0, 1, 2), epochs=1
  )
  # The network of the notes takes 4.0 million; a trial stays below 30 s.
  config.search.limits.macs = 4_100_000
  if arg == 'tiny':
    config.dataset.name, config.dataset.validation = 'digits', 0.1
    config.networks.tsukijinet2021.sizes.update(conv=(4, 8), hidden=16)
    config.train.epochs = 1
    config.search.update(
      trials=2, epochs=1, seeds=(0,), baselines=(), workers=1
    )
    config.measure.repeats = 5
  return config


def vary(train: ConfigDict, network: ConfigDict, at: str = 'train') -> None:
  """Put ranges in the place of the hyper-parameters of the notes.

  Args:
    train: Settings of the training; changed.
    network: The network; its sizes are changed.
    at: Where the settings are in the config.
  """
  train.lr = search.log(1e-4, 3e-1)
  train.batch_size = search.choice(32, 64, 128, 256)
  train.optimizer = search.choice('adamw', 'sgd')
  train.momentum = search.float(0.0, 0.99, when={f'{at}.optimizer': 'sgd'})
  train.label_smoothing = search.float(0.0, 0.2)
  train.patience = search.choice(0, 2)  # early stopping: no or yes
  network.sizes.kernel = search.integer(2, 7)
  network.sizes.stride = search.integer(1, 2)
  network.sizes.pool = search.integer(1, 3)
  network.sizes.hidden = search.integer(32, 512, log=True)
  network.sizes.dropout = search.float(0.0, 0.6)
  network.sizes.activation = search.choice('relu', 'leaky_relu', 'elu', 'silu')
