"""Removal of channels with everything that depends on them."""
