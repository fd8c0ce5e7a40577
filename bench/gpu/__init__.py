"""All that awaits a GPU, in a quarter of an hour: stages in order of value, each with a limit and a verdict.

`bench/gpu.sh` starts it. The driver is of the standard library alone, since what it runs may be missing.
"""
