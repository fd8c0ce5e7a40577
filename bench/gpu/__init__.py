"""The run of everything that only a GPU can show, in a quarter of an hour. Each stage has a limit and a verdict.

`bench/gpu.sh` starts the run. The stages come in order of value. The driver uses the standard library alone, as the
programs that it starts may lack their packages.
"""
