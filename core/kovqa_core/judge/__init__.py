"""Judges: a model on a server says how good free answers are.

A judge's scores are its own: another judge, or another prompt, gives others. Both stand in every result.
"""
