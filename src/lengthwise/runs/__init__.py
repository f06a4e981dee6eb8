"""A run folder: its files, its model, its answers."""
