"""Silence for libraries that draw progress bars of their own."""

from collections.abc import Generator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled


@contextmanager
def no_progress_bar() -> Generator[None]:
    """transformers draws no bar while it loads or saves weights."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()
