"""Tensors: corpora, subjects, dictionaries, their training and their metrics."""
