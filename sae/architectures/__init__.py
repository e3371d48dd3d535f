"""Autoencoders as dictionaries: what each computes, without how it is trained."""
