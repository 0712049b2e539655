"""What pyproject.toml cannot say: the compiled libraries (build_backend/build_ext.py)."""

from __future__ import annotations

from setuptools import setup

from build_backend.build_ext import BuildExt, extensions

setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
