"""Typed settings, from TOML and `--set`; and the methods that some of them select."""
