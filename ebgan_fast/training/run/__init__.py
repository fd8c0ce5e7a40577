"""The folder of a run: its paths, its checkpoints, its lines of metrics and scores."""
