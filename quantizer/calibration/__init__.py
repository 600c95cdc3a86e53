"""Calibration: from documents that look like production prompts to blocks of token ids of one exact length."""
