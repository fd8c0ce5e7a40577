"""Measurements in processes of their own: another commit's package, and the peak of memory."""
