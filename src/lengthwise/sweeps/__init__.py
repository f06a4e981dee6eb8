"""Sweeps: many cells, each a whole run, on the processes of a machine, on Ray or on Slurm."""
