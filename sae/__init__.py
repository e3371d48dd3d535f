"""Tensors: corpora, subjects, dictionaries, their training and their metrics."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"
"""The demonstration weights: ``subject`` in Hugging Face format, ``sae`` in SAELens format."""
