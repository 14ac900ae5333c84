"""Tests in this folder keep all compiled programs, where any are kept."""

from support.kept_programs import kept_programs  # noqa: F401
