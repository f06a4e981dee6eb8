"""What is shown while something runs: bars and tables, and a live line below a cell."""
