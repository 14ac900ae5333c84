"""What an older XLA:CPU does otherwise, where tests state figures of memory."""

import jax

COPIES = 0 if jax.__version_info__ >= (0, 10) else 1
"""Arrays like the outputs, `[T, B, H]`, that it may keep beside what the newest keeps."""
