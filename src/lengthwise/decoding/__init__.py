"""Greedy decoding: row by row with a cache, in parallel, by walks or by lookup; and which of them."""
