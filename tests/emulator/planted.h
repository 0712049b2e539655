// For sources with planted bugs, tests/cuda/test_planted_bugs.py: which one is at work, by the environment.
#pragma once

#include <cstdlib>

inline bool planted(int bug) {
  const char* chosen = std::getenv("PLANTED");
  return chosen && std::atoi(chosen) == bug;
}
