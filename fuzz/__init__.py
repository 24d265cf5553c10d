"""Fuzzing: see README.rst here."""
