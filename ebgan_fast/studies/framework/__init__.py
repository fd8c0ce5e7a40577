"""The parts that all studies share: the queue of trials, the run, the command, and the file of results."""
