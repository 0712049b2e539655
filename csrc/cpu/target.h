// Compiles a region of a file for a wider instruction set than the rest of the library.  Every header must be included
// before the region begins: an inline function compiled inside it might be the copy that the linker keeps for everyone.
#pragma once

#define TEXTCLF_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define TEXTCLF_TARGET_BEGIN(isa) \
  TEXTCLF_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define TEXTCLF_TARGET_END _Pragma("clang attribute pop")
#else
#define TEXTCLF_TARGET_BEGIN(isa) _Pragma("GCC push_options") TEXTCLF_PRAGMA(GCC target(isa))
#define TEXTCLF_TARGET_END _Pragma("GCC pop_options")
#endif
