"""Run one experiment: `python main.py --config=configs/NAME.py[:ARG]`."""

import os
import sys

try:
  from tsukiji.__main__ import main
except KeyboardInterrupt:  # before `main` handles signals
  os._exit(130)

if __name__ == '__main__':
  sys.exit(main())
