"""What goes by itself, and what only a garbage collection finds."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def no_garbage_collection() -> Generator[None]:
    """Within, what holds itself stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
