"""`python -m bptt_jax`, the same as `bptt-jax`."""

from bptt_jax.cli import entry

if __name__ == "__main__":
    entry()
