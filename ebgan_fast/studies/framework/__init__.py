"""The parts that all studies share: the queue of their trials, the run, the command, the file of results."""
