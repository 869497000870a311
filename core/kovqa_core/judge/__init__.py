"""Judges: a model on a server says how good free answers are."""
