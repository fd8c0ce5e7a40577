"""The folder of a run: its paths, its checkpoints, its lines, its lock."""
