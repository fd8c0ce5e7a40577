"""The data sets that the studies train on, and the scores of a generator on them."""
