// A thin vector type on the compilers' vector extension: one source for every instruction set.
//
// Included once per instruction set, inside its namespace and its target region (see kernels_*.cpp), after kVectorBytes
// has been defined.  No std header and no inline std function may be used here: one compiled under a wider target could
// be the copy that the linker keeps for everyone.
#pragma once

#define TEXTCLF_INLINE inline __attribute__((always_inline))
#define TEXTCLF_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
struct FloatTraits;

// Of 2^x = 2^n 2^f with n an integer and |f| <= 1/2: kTerms coefficients of (2^f - 1) / f, lowest first.
template <>
struct FloatTraits<float> {
  using Bits = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  static constexpr Bits kOne = 0x3f800000;      // the bits of 1.0f
  static constexpr float kMaxExponent = 43.0f;  // exp(43)^2 = 2e37: a product of two stays finite
  // The polynomial of this degree with the least relative error, 1.1e-8: a fifth of an ulp.
  static constexpr int kTerms = 6;
  static constexpr float coefficient(int k) {
    constexpr float c[kTerms] = {0.6931471825f,   0.2402264923f,   0.05550357327f,
                                 0.009618237615f, 0.001339073642f, 0.0001540350931f};
    return c[k];
  }
};

template <>
struct FloatTraits<double> {
  using Bits = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr Bits kOne = 0x3ff0000000000000;
  static constexpr double kMaxExponent = 350.0;  // exp(350)^2 = 1e304
  // Taylor: ln(2)^(k+1) / (k+1)!. The first term left out is (ln(2) / 2)^13 / 14! = 1e-17, relatively.
  static constexpr int kTerms = 13;
  static constexpr double coefficient(int k) {
    double c = 1;
    for (int i = 1; i <= k + 1; ++i) c *= 0.69314718055994530942 / i;
    return c;
  }
};

// What has no operator; an instruction set may have better ones of its own, as non-template overloads.
// Of a NaN and a number these are the second argument.
template <class V>
static TEXTCLF_INLINE V minimum(V a, V b) {
  return a < b ? a : b;
}
template <class V>
static TEXTCLF_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}
// 1 / x, right to an ulp or so, for normal numbers whose reciprocal is normal.
template <class V>
static TEXTCLF_INLINE V reciprocal(V x) {
  return 1 / x;
}

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

  // exp(kFactor x) = scale + part * p, with kFactor x clamped to +-kMaxExponent; a NaN stays one (in part).
  struct Exp {
    V scale, part, p;
    TEXTCLF_INLINE V plus_one() const { return part * p + (scale + T(1)); }
    TEXTCLF_INLINE V minus_one() const { return part * p + (scale - T(1)); }  // no digits are lost near x = 0
  };
  template <int kFactor>
  static TEXTCLF_INLINE Exp exp(V x) {
    constexpr T kLog2E = T(kFactor * 1.44269504088896340736),
                kMost = Traits::kMaxExponent / (kFactor < 0 ? -kFactor : kFactor);
    x = minimum(broadcast(kMost), maximum(broadcast(-kMost), x));
    const V shifted = x * kLog2E + Traits::kRound;
    const V n = shifted - Traits::kRound;
    const V f = x * kLog2E - n;
    V p = broadcast(Traits::coefficient(Traits::kTerms - 1));
#pragma GCC unroll 16
    for (int k = Traits::kTerms - 2; k >= 0; --k) p = p * f + Traits::coefficient(k);
    // (A cast between vectors keeps the bits.)  The low bits of `shifted` hold n: shifted into the exponent's place and
    // added to the bits of 1 they make 2^n.
    const V scale = (V)(((I)shifted << Traits::kMantissaBits) + Traits::kOne);
    return {scale, scale * f, p};
  }

 private:
  static constexpr int kCurrentRounding = 4;  // of AVX-512's builtins: as the control register says

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

// A step of a product: the next kPair numbers of a row, times as many of each lane of a vector of weights.  Weights lie
// (depth / kPair, lanes, kPair) for it.
template <class T>
struct Product {
  using V = typename Simd<T>::V;
  static constexpr int64_t kPair = 1;
  static TEXTCLF_INLINE V weights(const T* w) { return Simd<T>::load(w); }
  static TEXTCLF_INLINE T numbers(const T* a) { return *a; }
  static TEXTCLF_INLINE V multiply_add(V w, T x, V sum) { return w * x + sum; }
  // `count` numbers of each of kPair rows (a, b) beside each other; b is not read where kPair is 1.
  static TEXTCLF_INLINE void interleave(const T* a, const T*, int64_t count, T* to) {
    __builtin_memcpy(to, a, count * sizeof(T));
  }
};
