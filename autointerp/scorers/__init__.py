"""Scorers: how a trial is posed and what its predictions are worth."""
