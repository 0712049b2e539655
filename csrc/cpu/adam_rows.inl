// Adam on rows that missed steps.  Included once per instruction set, see simd.inl.
//
// Without a gradient, m and v only shrink: after the i-th missed step they are m b1 and v b2, with b1, b2 the products
// of the betas so far. So the step's movement is size * m / (sqrt(v) * root + eps), with m and sqrt(v) of before the
// first one, and size, root of the step alone: one division, no square root, no chain from step to step. The movements
// are summed and subtracted once: a row's p is rounded once, not at every step.
//
// The sum ends early.  All its terms have the sign of m, and the terms that are left make up at most kNegligible of it:
// `rest.tail` says so where eps is negligible, and an eps that is not takes more from the later terms than from the
// earlier ones, as sqrt(v) * root does not grow from step to step. With beta1 = 0.9 that is after some 170 steps. In
// float kNegligible of the sum, 2^-26, is a quarter of its last bit; in double it is 2^-55.
//
// Weight decay that is added to the gradient (l2) gives every step a gradient: those are taken one by one.
#pragma once

#include "tiles.inl"

template <class T>
struct AdamCoefficients {
  T size, root, eps;
};

template <class T>
constexpr double kNegligible = sizeof(T) == 4 ? 1.0 / (1 << 26) : 1.0 / (int64_t(1) << 55);

// The coefficients of steps [done, end), as many as matter: returns how many.
template <class T>
static int64_t adam_coefficients(const AdamRows<T>& a, int64_t done, AdamCoefficients<T>* coefficients) {
  const double enough = kNegligible<T> * a.rest[done].tail;
  double beta1 = 1, root_beta2 = 1;
  int64_t count = 0;
  for (int64_t i = done; i < a.end; ++i) {
    const AdamStep& s = a.steps[i];
    beta1 *= s.beta1;
    root_beta2 *= s.root_beta2;
    coefficients[count++] = {T(s.step_size * beta1 * a.rest[i + 1].keep), T(s.root_correction * root_beta2), T(s.eps)};
    // Not finite where beta2 = 0 or underflows: then all steps are taken.
    const double left = beta1 / root_beta2 * a.rest[i + 1].tail;
    if (left <= enough && enough < 1e300) break;
  }
  return count;
}

// One step on NV vectors, with the gradient g.
template <class T, int NV>
static TEXTCLF_INLINE void adam_step(const AdamStep& s, const typename Simd<T>::V* g, typename Simd<T>::V* p,
                                     typename Simd<T>::V* m, typename Simd<T>::V* v) {
  using S = Simd<T>;
  const T l2 = T(s.l2), keep = T(s.keep), size = T(s.step_size), root = T(s.root_correction), eps = T(s.eps);
  const T beta2 = T(s.beta2), new1 = T(1 - s.beta1), new2 = T(1 - s.beta2);
#pragma GCC unroll 4
  for (int i = 0; i < NV; ++i) {
    const typename S::V grad = g[i] + p[i] * l2;
    m[i] += (grad - m[i]) * new1;
    v[i] = v[i] * beta2 + grad * grad * new2;
    p[i] = p[i] * keep - m[i] / (S::sqrt(v[i]) * root + eps) * size;
  }
}

// NV vectors of row u, from `column` on.
template <class T, int NV>
static TEXTCLF_INLINE void adam_vectors(const AdamRows<T>& a, int64_t u, int64_t column,
                                        const AdamCoefficients<T>* coefficients, int64_t count) {
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t at = a.rows[u] * a.width + column;
  const auto lanes = [&](int i) { return smaller(S::kLanes, a.width - column - i * S::kLanes); };
  V p[NV], m[NV], v[NV];
#pragma GCC unroll 4
  for (int i = 0; i < NV; ++i) {
    p[i] = S::load_first(a.param + at + i * S::kLanes, lanes(i));
    m[i] = S::load_first(a.exp_avg + at + i * S::kLanes, lanes(i));
    v[i] = S::load_first(a.exp_avg_sq + at + i * S::kLanes, lanes(i));
  }
  const int64_t done = a.done[u];
  if (a.with_l2) {
    const V none[NV] = {};
    for (int64_t step = done; step < a.end; ++step) adam_step<T, NV>(a.steps[step], none, p, m, v);
  } else if (done < a.end) {
    V root[NV], moved[NV] = {};
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) root[i] = S::sqrt(v[i]);
    for (int64_t k = 0; k < count; ++k) {
      const AdamCoefficients<T> c = coefficients[k];
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i) moved[i] += m[i] / (root[i] * c.root + c.eps) * c.size;
    }
    const AdamRest& rest = a.rest[done];
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) {
      p[i] = p[i] * T(rest.keep) - moved[i];
      m[i] *= T(rest.beta1);
      v[i] *= T(rest.beta2);
    }
  }
  if (a.grad) {
    V g[NV];
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) g[i] = S::load_first(a.grad + u * a.width + column + i * S::kLanes, lanes(i));
    adam_step<T, NV>(a.steps[a.end], g, p, m, v);
  }
#pragma GCC unroll 4
  for (int i = 0; i < NV; ++i) {
    S::store_first(a.param + at + i * S::kLanes, p[i], lanes(i));
    S::store_first(a.exp_avg + at + i * S::kLanes, m[i], lanes(i));
    S::store_first(a.exp_avg_sq + at + i * S::kLanes, v[i], lanes(i));
  }
}

// Asks for a row's p, m and v.  The rows of a batch lie anywhere in 12 MB (at V = 10,000, E = 100), mostly outside of
// the second-level cache, and a row takes about as long to compute as to arrive: it is asked for two rows ahead.
template <class T>
static TEXTCLF_INLINE void prefetch_row(const AdamRows<T>& a, int64_t u) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t at = a.rows[u] * a.width;
  for (int64_t j = 0; j < a.width; j += kLine) {
    __builtin_prefetch(a.exp_avg + at + j, 1);
    __builtin_prefetch(a.exp_avg_sq + at + j, 1);
    __builtin_prefetch(a.param + at + j, 1);
  }
}

// The rows [first, last) of the problem; scratch: `end` - least of done coefficients.
template <class T>
static void adam_rows(const AdamRows<T>& a, int64_t first, int64_t last, void* scratch) {
  auto* coefficients = static_cast<AdamCoefficients<T>*>(scratch);
  int64_t made_for = -1, made = 0;
  constexpr int64_t kAhead = 2;
  for (int64_t u = first; u < smaller(first + kAhead, last); ++u) prefetch_row(a, u);
  for (int64_t u = first; u < last; ++u) {
    if (u + kAhead < last) prefetch_row(a, u + kAhead);
    bool moving = false;  // a token that was never in a batch has m = 0, and stays where it is
    const T* m = a.exp_avg + a.rows[u] * a.width;
    for (int64_t j = 0; j < a.width; ++j) moving |= m[j] != T(0);
    if (moving && !a.with_l2 && a.done[u] < a.end && made_for != a.done[u]) {
      made_for = a.done[u];
      made = adam_coefficients(a, made_for, coefficients);
    }
    const int64_t count = moving ? made : 0;
    for (int64_t column = 0; column < a.width; column += kGroup * Simd<T>::kLanes)
      with_vectors<T>(padded<T>(a.width) - column,
                      [&]<int NV>() { adam_vectors<T, NV>(a, u, column, coefficients, count); });
  }
}

template <class T>
static int64_t adam_scratch_bytes(int64_t steps) {
  return steps * int64_t(sizeof(AdamCoefficients<T>));
}
