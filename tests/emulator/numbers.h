// 16-bit and tf32 numbers in software, rounded to nearest: ties to even, but away from zero for tf32, as the GPU does.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace emulator {

inline float bf16_value(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline uint16_t bf16_bits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if (x != x) return 0x7fff;
  return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float x;
  if (exponent == 31) {
    x = fraction ? NAN : INFINITY;
  } else if (exponent == 0) {
    x = float(fraction) * 0x1p-24f;
  } else {
    x = std::bit_cast<float>(uint32_t(exponent + 112) << 23 | uint32_t(fraction) << 13);
  }
  return bits & 0x8000 ? -x : x;
}

inline uint16_t half_bits(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (x != x) return 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < 0x1p-14f) return sign | uint16_t(std::nearbyint(size * 0x1p24f));  // 1024 of these: the least normal one
  const uint32_t u = std::bit_cast<uint32_t>(size) - (112u << 23);
  return sign | uint16_t((u + 0xfff + (u >> 13 & 1)) >> 13);
}

inline uint32_t tf32_bits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if (x != x) return 0x7fffffff;
  if (std::isinf(x)) return u;
  return (u + 0x1000) & 0xffffe000;
}

}  // namespace emulator
