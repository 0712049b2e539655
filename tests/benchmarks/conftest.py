"""Makes `import benchmarks` find the folder of this source tree."""

from __future__ import annotations

import source_packages

source_packages.load("benchmarks")
