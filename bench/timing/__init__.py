"""Timing of steps by turns: watches, rounds, devices, providers, ceilings, and the measurement of a case."""
