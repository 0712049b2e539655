"""The one exception of the build: its message is one line that says what is wrong and what to do."""

from __future__ import annotations

from setuptools.errors import BaseError


class BuildError(BaseError):
    """setuptools prints the message of this family of errors alone, without a traceback."""
