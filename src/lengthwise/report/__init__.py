"""Reports: `plots` draws pictures of results, `html` writes one page that holds them all."""
