"""The paper's studies, each one command: trials on a shared queue, results in a file, tables and figures out of it."""
