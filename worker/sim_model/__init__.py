"""The checkpoint that the sim engine serves by default: a small byte-level tokenizer, a ChatML template, no weights."""
