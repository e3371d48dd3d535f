"""Servers that stand in for the providers."""
