"""Measurements of ebgan_fast: `python -m bench ops` from the root of the repository.

The rooms, in the order in which imports run. A room imports from rooms above it in this list alone:

* `results`: rows, the conditions under which they were measured, and the files of rows.
* `subjects`: the losses and training steps that are timed.
* `timing`: watches, rounds, devices, ceilings, and the measurement of a case.
* `processes`: measurements in processes of their own, such as another commit's package.
* `tuning`: the search for faster tiles of the Triton kernels.
* `pages`: rows as tables, pictures and pages.
* `commands`: one file for each command.
* `gpu`: `bench/gpu.sh`, which starts the commands. It imports none of the other rooms.
"""
