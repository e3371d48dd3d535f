"""Presets, one file each: which evidence, which scorer, which sizes."""
