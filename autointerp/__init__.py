"""Evaluates how interpretable the features of a language model are."""
