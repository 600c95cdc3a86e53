"""Modules that are also run compiled: which they are, whether this process does so, and how they are compiled.

mypyc makes extension modules of the same source files, which stay what is tested, read and traced. A process takes the
compiled ones where they have been built of exactly the sources that it would otherwise run, and else these (ADR 15).
"""
