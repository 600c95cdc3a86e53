"""The proof: what a checkpoint, read back from disk, answers beside its source and beside rounding to nearest."""
