// A thin vector type on the compilers' vector extension: one source for every instruction set.
//
// Included once per instruction set, inside its namespace and its target region (see kernels_*.cpp), after kVectorBytes
// has been defined.  No std header and no inline std function may be used here: one compiled under a wider target could
// be the copy that the linker keeps for everyone.
#pragma once

#define TEXTCLF_INLINE inline __attribute__((always_inline))

template <class T>
struct FloatTraits;

// exp(r) - 1 on |r| <= ln(2) / 2 by its Taylor series, r + r^2/2! + ... : the first term left out is
// 0.3466^8 / 8! = 5e-9 in float (half an ulp of 1 is 6e-8) and 0.3466^14 / 14! = 4e-18 in double (1e-16).
template <>
struct FloatTraits<float> {
  using Bits = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr int kTerms = 7;
  static constexpr float kRound = 12582912.0f;     // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  static constexpr Bits kOne = 0x3f800000;         // the bits of 1.0f
  static constexpr float kLn2High = 0.693359375f;  // ln(2) in two parts; the high one has 10 bits, so n * high is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kMaxExponent = 88.0f;  // exp(88) = 1.7e38 is finite, exp(-87) is normal
  static constexpr float kMinExponent = -87.0f;
};

template <>
struct FloatTraits<double> {
  using Bits = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr int kTerms = 13;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr Bits kOne = 0x3ff0000000000000;
  static constexpr double kLn2High = 6.93147180369123816490e-01;  // 21 trailing zero bits: exact for |n| < 2^20
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kMaxExponent = 709.0;
  static constexpr double kMinExponent = -708.0;
};

template <class T>
struct Simd {
  using Traits = FloatTraits<T>;
  typedef T V __attribute__((vector_size(kVectorBytes)));
  typedef typename Traits::Bits I __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t kLanes = kVectorBytes / sizeof(T);

  static TEXTCLF_INLINE V load(const T* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof(V));
    return v;
  }
  static TEXTCLF_INLINE void store(T* p, V v) { __builtin_memcpy(p, &v, sizeof(V)); }

  // The first `count` lanes, the others zero.  `count` is the same for a whole block of rows, so its branches predict.
  static TEXTCLF_INLINE V load_first(const T* p, int64_t count) {
    if (count == kLanes) return load(p);
    V v = {};
    copy_first(reinterpret_cast<char*>(&v), reinterpret_cast<const char*>(p), count * int64_t(sizeof(T)));
    return v;
  }
  static TEXTCLF_INLINE void store_first(T* p, V v, int64_t count) {
    if (count == kLanes) return store(p, v);
    copy_first(reinterpret_cast<char*>(p), reinterpret_cast<const char*>(&v), count * int64_t(sizeof(T)));
  }

  static TEXTCLF_INLINE V broadcast(T x) {
    V v;
    for (int64_t k = 0; k < kLanes; ++k) v[k] = x;
    return v;
  }

  // The vector extension has no square root: the compilers' builtins, by the vector's size and type.
  static TEXTCLF_INLINE V sqrt(V x) {
#ifdef __clang__
    return __builtin_elementwise_sqrt(x);
#elif defined(__x86_64__)
    if constexpr (sizeof(V) == 64 && sizeof(T) == 4)
      return __builtin_ia32_sqrtps512_mask(x, x, -1, kCurrentRounding);
    else if constexpr (sizeof(V) == 64)
      return __builtin_ia32_sqrtpd512_mask(x, x, -1, kCurrentRounding);
    else if constexpr (sizeof(V) == 32 && sizeof(T) == 4)
      return __builtin_ia32_sqrtps256(x);
    else if constexpr (sizeof(V) == 32)
      return __builtin_ia32_sqrtpd256(x);
    else if constexpr (sizeof(T) == 4)
      return __builtin_ia32_sqrtps(x);
    else
      return __builtin_ia32_sqrtpd(x);
#else
    for (int64_t k = 0; k < kLanes; ++k) x[k] = sizeof(T) == 4 ? __builtin_sqrtf(x[k]) : __builtin_sqrt(x[k]);
    return x;
#endif
  }

  // Clamps; a NaN passes through, as both comparisons are false.
  static TEXTCLF_INLINE V clamp(V x, T low, T high) {
    x = x > high ? broadcast(high) : x;
    return x < low ? broadcast(low) : x;
  }

  // x = n ln(2) + r, |r| <= ln(2) / 2.  Returns 2^n and, in `q`, exp(r) - 1.
  static TEXTCLF_INLINE V split_exp(V x, V& q) {
    constexpr T kLog2E = T(1.44269504088896340736);
    const V shifted = x * kLog2E + Traits::kRound;
    const V n = shifted - Traits::kRound;
    V r = x - n * Traits::kLn2High;
    r = r - n * Traits::kLn2Low;
    V p = broadcast(inverse_factorial(Traits::kTerms));
#pragma GCC unroll 16
    for (int k = Traits::kTerms - 1; k >= 1; --k) p = p * r + inverse_factorial(k);
    q = p * r;
    // (A cast between vectors keeps the bits.)  The low bits of `shifted` hold n: shifted into the exponent's place and
    // added to the bits of 1 they make 2^n.
    const I exponent = ((I)shifted << Traits::kMantissaBits) + Traits::kOne;
    return (V)exponent;
  }

  static TEXTCLF_INLINE V sigmoid(V x) {
    V q;
    const V scale = split_exp(clamp(-x, Traits::kMinExponent, Traits::kMaxExponent), q);
    return T(1) / (T(1) + (scale * q + scale));
  }

  // tanh(x) = m / (m + 2) with m = exp(2x) - 1 = 2^n q + (2^n - 1): right to a few ulp near zero too, where
  // (1 - e) / (1 + e) would cancel.
  static TEXTCLF_INLINE V tanh(V x) {
    V q;
    const V scale = split_exp(clamp(x + x, Traits::kMinExponent, Traits::kMaxExponent), q);
    const V m = scale * q + (scale - T(1));
    return m / (m + T(2));
  }

 private:
  static constexpr int kCurrentRounding = 4;  // of AVX-512's builtins: as the control register says

  static constexpr T inverse_factorial(int k) {
    double f = 1;
    for (int i = 2; i <= k; ++i) f *= i;
    return T(1.0 / f);
  }

  template <int kBytes>
  static TEXTCLF_INLINE void copy(char*& to, const char*& from) {
    __builtin_memcpy(to, from, kBytes);
    to += kBytes;
    from += kBytes;
  }
  // bytes < kVectorBytes, a multiple of 4: at most four constant-size moves instead of a call to memcpy.
  static TEXTCLF_INLINE void copy_first(char* to, const char* from, int64_t bytes) {
    if (kVectorBytes > 32 && bytes & 32) copy<kVectorBytes / 2>(to, from);
    if (kVectorBytes > 16 && bytes & 16) copy<16>(to, from);
    if (bytes & 8) copy<8>(to, from);
    if (bytes & 4) copy<4>(to, from);
  }
};
