"""The search for faster tiles of the Triton kernels: knobs, their trials, and compiling ahead."""
