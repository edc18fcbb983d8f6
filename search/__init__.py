"""Search: optimisers over configurations."""

from search.leaf import choice, float, integer, log

__all__ = ['choice', 'float', 'integer', 'log']
