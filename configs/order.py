"""Does it matter what comes first, zeros or bits?

  python main.py --config=configs/order.py --workdir=runs/order

LeNet-5 on Fashion-MNIST, three seeds: zeros and learned grids at once, in both
orders of the algebra, and one after the other, in as many epochs altogether.
About an hour on 2 cores. What a teacher does first or last is in
`configs.distillation`, after Mishra & Marr 2018.
"""

from ml_collections import ConfigDict

from tsukiji import settings

EPOCHS = 8  # half of them each where one comes after the other
LEVELS = {'some': (0.9, 4), 'most': (0.95, 2)}  # share of zeros, bits


def get_config(arg: str = '') -> ConfigDict:
  """Return the config; ':tiny' is the same shape on digits, in seconds."""
  config = settings.fashion_mnist('Zeros or bits first?', finetune=EPOCHS)
  config.networks = {'lenet5': settings.network('lenet5')}
  for level, (share, bits) in LEVELS.items():
    zeros = f'prune.weights({share}, scope="global", schedule=cubic(0.0, 0.6))'
    grid = f'quantize.lsq({bits}, 8)'
    half = EPOCHS // 2
    config.recipes.update(
      {
        f'{level}_zeros_and_bits': _recipe(f'{zeros} >> {grid}'),
        f'{level}_bits_and_zeros': _recipe(f'{grid} >> {zeros}'),
        f'{level}_zeros': _recipe(zeros, epochs=half),
        f'{level}_zeros_then_bits': _recipe(
          grid, epochs=half, start=f'{level}_zeros'
        ),
        f'{level}_bits': _recipe(grid, epochs=half),
        f'{level}_bits_then_zeros': _recipe(
          zeros, epochs=half, start=f'{level}_bits'
        ),
      }
    )
  return _tiny(config) if arg == 'tiny' else config


def _recipe(text: str, **changes: int | str) -> ConfigDict:
  return settings.compression(
    text, 'combined', mode='qat', dropout=0.0, label_smoothing=0.0, **changes
  )


def _tiny(config: ConfigDict) -> ConfigDict:
  config.dataset.name, config.dataset.validation = 'digits', 0.1
  config.seeds = (0,)
  config.networks = {'small': settings.network('small')}
  config.train.epochs = 1
  for name in [*config.recipes]:
    if name.startswith('most'):
      del config.recipes[name]
  for item in config.recipes.values():
    item.epochs = 1
  config.measure.repeats = 5
  return config
