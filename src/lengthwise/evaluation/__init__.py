"""Exact match by length, and which symbols are wrong."""
