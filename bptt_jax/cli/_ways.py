"""What messages of the library propose to somebody who calls it, as a command has it."""

_IN_PYTHON = "train.load opens it in Python"
WAYS = (
    ("choose another folder (out), or overwrite=True, which moves that run aside",
     "choose another --out"),
    ("choose another folder (out)", "choose another --out"),
    ("give the task: load(…, task=)", _IN_PYTHON),
    ("hand the model in: load(…, model=)", _IN_PYTHON),
    ("hand the task in: load(…, task=)", _IN_PYTHON),
    ("a tokenizer that is not kept in its folder is given: load(…, tokenizer=)",
     "with a tokenizer that is not kept in its folder train.load opens it in Python"),
    ("say per_step=False or per_step=True",
     "[N, T, 1] is one a step (a vector a sequence, as long as it, is for Python)"),
)  # fmt: skip
"""Words of an error, and what a user of the command line reads in their place."""


def of_the_command(message: str) -> str:
    """A message without arguments of Python.

    >>> of_the_command("r holds 9 steps; choose another folder (out)")
    'r holds 9 steps; choose another --out'
    """
    for python, command in WAYS:
        message = message.replace(python, command)
    return message
