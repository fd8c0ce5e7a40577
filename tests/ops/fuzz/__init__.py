"""A differential test: random calls on every kernel, held against formulas that share no code with the package."""
