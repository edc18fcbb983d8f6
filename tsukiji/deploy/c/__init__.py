"""Networks as one C file each, without an engine."""
