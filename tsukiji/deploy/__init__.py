"""From trained networks to files that run."""

from tsukiji.deploy.functions import load, save

__all__ = ['load', 'save']
