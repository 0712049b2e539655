// What AddressSanitizer and ThreadSanitizer have to be told about fibers; empty without them.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace emulator {

// While one exists the fiber's accesses are not looked at: the emulator's own state is shared by all fibers, safely, as
// they take turns on one thread of the system; TSan would call that a race. Never held over a switch.
class Unwatched {
 public:
#ifdef __SANITIZE_THREAD__
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unwatched() {}
  ~Unwatched() {}
#endif
  Unwatched(const Unwatched&) = delete;
};

// What happened before a release of `edge` is seen after an acquire of it: how barriers are explained to TSan.
inline void release([[maybe_unused]] void* edge) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(edge);
#endif
}
inline void acquire([[maybe_unused]] void* edge) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(edge);
#endif
}

}  // namespace emulator
