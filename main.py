"""Run one experiment: `python main.py --config=configs/NAME.py[:ARG]`."""

import sys

from tsukiji.__main__ import main

if __name__ == '__main__':
  sys.exit(main())
