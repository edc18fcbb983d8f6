"""Removal of whole channels: smaller layers, with nothing left to skip."""
