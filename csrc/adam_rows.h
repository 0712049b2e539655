// Adam on some rows of a matrix, as plain sizes and pointers: what every kernel is told.
//
// A row's moments m, v and its parameters p are those after some of the steps that have been taken; the later ones, in
// which the row had no gradient, are made up for when it is next needed. A step without a gradient is
//   m = beta1 m,  v = beta2 v,  p = keep p - step_size m / (sqrt(v) root_correction + eps).
#pragma once

#include <cstdint>

namespace textclf_fast {

// One step, as a row of `history`: the numbers of the optimizer at that step, n-th of the parameter.
struct AdamStep {
  double step_size;        // lr / (1 - beta1^n)
  double root_correction;  // 1 / sqrt(1 - beta2^n)
  double beta1;
  double beta2;
  double root_beta2;  // sqrt(beta2)
  double keep;        // decoupled weight decay: 1 - lr * weight_decay; else 1
  double l2;          // weight_decay that is added to the gradient; else 0
  double eps;
};
constexpr int64_t kStepNumbers = sizeof(AdamStep) / sizeof(double);

// What all steps from one on do together. `tail` is the sum of the movements they make where eps is negligible, for a
// row with m = sqrt(v) = 1 before the first of them: it says when the rest of a row's steps no longer matters.
struct AdamRest {
  double tail;
  double keep, beta1, beta2;  // products
};

template <class T>
struct AdamRows {
  int64_t width;          // E
  const int64_t* rows;    // (U), distinct
  const int64_t* done;    // (U): a row has had steps [0, done)
  T* param;               // (V, E); likewise the moments m and v
  T* exp_avg;             //
  T* exp_avg_sq;          //
  const AdamStep* steps;  // [0, end), and the step with a gradient at end
  const AdamRest* rest;   // rest[i]: steps [i, end), for i in least of done .. end
  int64_t end;            // rows get the steps [done, end) without a gradient,
  const T* grad;          // and then one with this (U, E); null: no further one
  bool with_l2;           // whether any of the steps [0, end) has l2
};

}  // namespace textclf_fast
