"""Calling language models: exact money, no answer paid twice."""
