"""A differential test: calls drawn at random, on every kernel, against formulas that share no code with the package."""
