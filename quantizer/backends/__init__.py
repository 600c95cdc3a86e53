"""The libraries that do the quantizing, each behind the protocol of ``backend.py`` and imported nowhere else."""
