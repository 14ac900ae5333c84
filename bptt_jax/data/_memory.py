"""How much this machine can hold."""

import os


def memory() -> int:
    """Bytes of the machine's memory; where the system does not say, no bound."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63
