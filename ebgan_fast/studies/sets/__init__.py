"""The sets that the studies train on, and the scores of a generator there."""
