"""The losses and training steps that are timed: cases, formulas, calls, and loops of training."""
