"""Explainers: from evidence to a text."""
