"""Search: optimisers over configurations; nothing is here yet."""
