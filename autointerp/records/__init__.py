"""Frozen records that pass between rooms; no behaviour beyond their own invariants."""
