"""Doors to the places where people keep models and data: the Hub, reasoning-gym, datasets, CLRS-Text."""
