"""Interleaved timing: watches, rounds, devices, providers, ceilings, and the measurement of a case."""
