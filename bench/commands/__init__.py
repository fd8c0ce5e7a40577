"""The commands of `python -m bench`, one file for each, and the frame that they share."""
