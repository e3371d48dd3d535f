"""Simulators: from a text to predicted activations."""
