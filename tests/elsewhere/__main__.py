"""PYTHONPATH=tests python -m elsewhere [--write]     compares with the table, or writes it."""

import argparse
import json
import time

import jax

from elsewhere import programs

parser = argparse.ArgumentParser(prog="python -m elsewhere")
parser.add_argument("--write", action="store_true", help="the table anew")
write = parser.parse_args().write

jax.config.update("jax_enable_compilation_cache", False)  # cannot be read for these
was = programs.table() if programs.TABLE.exists() else {}
found = {}
for name, of in programs.PROGRAMS.items():
    began = time.perf_counter()
    found[name] = of()
    same = "as it was" if found[name] == was.get(name) else f"was {was.get(name)}"
    print(f"{time.perf_counter() - began:5.1f} s  {name}: {found[name]}; {same}")
if write:
    programs.TABLE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
