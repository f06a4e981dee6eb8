"""The same numbers sooner: products, attention to few keys, all weights in one tensor."""
