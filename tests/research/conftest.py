"""Tests in this folder run in float64 under strict promotion of dtypes."""

from support.float64 import float64  # noqa: F401
