"""Tests in this folder keep all compiled programs, where they are kept on disk."""

from support.kept_programs import kept_programs  # noqa: F401
