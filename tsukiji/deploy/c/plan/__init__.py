"""From a graph to the steps of a C file."""
