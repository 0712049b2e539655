// Adam on the rows of an embedding that are in use: checks, the steps that rows have missed, threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../tensor_checks.h"
#include "kernels.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

// done (V), each 0 .. steps: the rows' counts of steps.
const int64_t* check_done(const Tensor& done, int64_t rows) {
  check_int64_vector(done, "done");
  if (rows >= 0) check_shape(done, "done", {rows});
  STD_TORCH_CHECK(done.is_contiguous() && done.is_cpu(), "done: expected a contiguous tensor on the CPU");
  return static_cast<const int64_t*>(done.const_data_ptr());
}

Tensor stale_rows(const Tensor& ids, const Tensor& done, int64_t steps) {
  STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, "ids: expected dtype int64");
  STD_TORCH_CHECK(steps >= 0, "steps: expected at least 0, got ", steps);
  const int64_t* had = check_done(done, -1);
  const int64_t vocab_size = done.size(0);
  const Tensor ids_c = dense(ids);
  const auto* id = static_cast<const int64_t*>(ids_c.const_data_ptr());
  const int64_t count = ids_c.numel();
  std::vector<int64_t> rows;
  std::vector<bool> seen(size_t(vocab_size), false);  // 1.25 kB at V = 10,000
  for (int64_t n = 0; n < count; ++n) {
    STD_TORCH_CHECK(uint64_t(id[n]) < uint64_t(vocab_size), "ids: id ", id[n], " at position ", n,
                    ", expected 0 <= id < ", vocab_size);
    if (had[id[n]] >= steps || seen[size_t(id[n])]) continue;
    seen[size_t(id[n])] = true;
    rows.push_back(id[n]);
  }
  Tensor stale = uninitialized(ids_c, {int64_t(rows.size())});
  std::copy(rows.begin(), rows.end(), static_cast<int64_t*>(stale.mutable_data_ptr()));
  return stale;
}

void check_matrix(const Tensor& t, const char* name, const Tensor& param) {
  check_shape(t, name, {param.size(0), param.size(1)});
  STD_TORCH_CHECK(t.scalar_type() == param.scalar_type(), name, ": its dtype differs from that of param");
  STD_TORCH_CHECK(t.is_contiguous() && t.is_cpu(), name, ": expected a contiguous tensor on the CPU");
}

// Distinct, within the V rows, and none of them further than the step before its gradient: how many steps each has had.
std::vector<int64_t> check_rows(const Tensor& rows, const int64_t* done, int64_t vocab_size, int64_t end) {
  check_int64_vector(rows, "rows");
  STD_TORCH_CHECK(rows.is_contiguous() && rows.is_cpu(), "rows: expected a contiguous tensor on the CPU");
  const auto* row = static_cast<const int64_t*>(rows.const_data_ptr());
  std::vector<int64_t> had(size_t(rows.size(0)));
  std::vector<bool> seen(size_t(vocab_size), false);
  for (int64_t u = 0; u < rows.size(0); ++u) {
    STD_TORCH_CHECK(uint64_t(row[u]) < uint64_t(vocab_size), "rows: rows[", u, "] = ", row[u], ", expected 0 <= row < ",
                    vocab_size);
    STD_TORCH_CHECK(!seen[size_t(row[u])], "rows: rows[", u, "] = ", row[u], " is there twice, expected distinct rows");
    seen[size_t(row[u])] = true;
    had[size_t(u)] = done[row[u]];
    STD_TORCH_CHECK(had[size_t(u)] >= 0 && had[size_t(u)] <= end, "done: row ", row[u], " has had ", had[size_t(u)],
                    " steps, expected 0 to ", end, " before this call");
  }
  return had;
}

// rest[i] for i in least .. end, at rest[i - least]; see adam_rows.h.
std::vector<AdamRest> sum_up(const AdamStep* steps, int64_t least, int64_t end) {
  std::vector<AdamRest> rest(size_t(end - least) + 1, AdamRest{0, 1, 1, 1});
  for (int64_t i = end - 1; i >= least; --i) {
    const AdamStep& s = steps[i];
    const AdamRest& later = rest[size_t(i - least) + 1];
    const double movement = s.step_size / s.root_correction * std::abs(later.keep);
    rest[size_t(i - least)] = {s.beta1 / s.root_beta2 * (movement + later.tail), s.keep * later.keep,
                               s.beta1 * later.beta1, s.beta2 * later.beta2};
  }
  return rest;
}

// Below this many numbers times steps a call is done by one thread: 16 of them take some 10 cycles, a division, so that
// it is 10 us, twice what it costs to wake a second thread.
constexpr int64_t kWorthAThread = int64_t(1) << 16;
constexpr int64_t kMostSteps = 170;  // that matter, see adam_rows.inl

template <class T>
void run(AdamRows<T> problem, int64_t count, const std::vector<AdamRest>& rest, int64_t least) {
  const KernelTable<T>& k = kernels<T>();
  problem.rest = rest.data() - least;
  int64_t work = 0;
  for (int64_t u = 0; u < count; ++u)
    work +=
        (std::min(problem.end - problem.done[u], kMostSteps) + 4) * problem.width;  // 4: loads, stores, the gradient
  const int64_t grain = std::max<int64_t>(1, count * kWorthAThread / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, count, grain, [&](int64_t first, int64_t last) {
    const auto scratch = std::make_unique<double[]>(size_t(k.adam_scratch_bytes(problem.end - least)) / 8 + 1);
    k.adam_rows(problem, first, last, scratch.get());
  });
}

void adam_rows_(Tensor param, Tensor exp_avg, Tensor exp_avg_sq, Tensor done, const Tensor& rows,
                const std::optional<Tensor>& grad, const Tensor& history, int64_t steps) {
  STD_TORCH_CHECK(param.dim() == 2, "param: expected shape (V, E), got ", shape_text(param));
  STD_TORCH_CHECK(param.scalar_type() == ScalarType::Float || param.scalar_type() == ScalarType::Double,
                  "param: expected dtype float32 or float64");
  check_matrix(param, "param", param);
  check_matrix(exp_avg, "exp_avg", param);
  check_matrix(exp_avg_sq, "exp_avg_sq", param);
  STD_TORCH_CHECK(history.dim() == 2, "history: expected shape (S, 8), got ", shape_text(history));
  check_shape(history, "history", {history.size(0), kStepNumbers});
  STD_TORCH_CHECK(history.scalar_type() == ScalarType::Double, "history: expected dtype float64");
  STD_TORCH_CHECK(history.is_contiguous() && history.is_cpu(), "history: expected a contiguous tensor on the CPU");
  STD_TORCH_CHECK(steps >= (grad ? 1 : 0) && steps <= history.size(0), "steps: got ", steps, ", expected ",
                  grad ? 1 : 0, " to the ", history.size(0), " rows of history");
  const int64_t end = grad ? steps - 1 : steps;
  const std::vector<int64_t> had = check_rows(rows, check_done(done, param.size(0)), param.size(0), end);
  const int64_t count = rows.size(0);
  std::optional<Tensor> grad_c;
  if (grad) {
    check_shape(*grad, "grad", {count, param.size(1)});
    STD_TORCH_CHECK(grad->scalar_type() == param.scalar_type(), "grad: its dtype differs from that of param");
    STD_TORCH_CHECK(grad->is_cpu(), "grad: expected a tensor on the CPU");
    grad_c = dense(*grad);
  }
  if (count == 0) return;

  const auto* step = static_cast<const AdamStep*>(history.const_data_ptr());
  const int64_t least = *std::min_element(had.begin(), had.end());
  const std::vector<AdamRest> rest = sum_up(step, least, end);
  const bool with_l2 = std::any_of(step + least, step + end, [](const AdamStep& s) { return s.l2 != 0; });
  const auto* row = static_cast<const int64_t*>(rows.const_data_ptr());
  const auto run_as = [&]<class T>(T) {
    run<T>({param.size(1), row, had.data(), static_cast<T*>(param.mutable_data_ptr()),
            static_cast<T*>(exp_avg.mutable_data_ptr()), static_cast<T*>(exp_avg_sq.mutable_data_ptr()), step, nullptr,
            end, grad_c ? static_cast<const T*>(grad_c->const_data_ptr()) : nullptr, with_l2},
           count, rest, least);
  };
  if (param.scalar_type() == ScalarType::Float)
    run_as(float{});
  else
    run_as(double{});
  auto* now = static_cast<int64_t*>(done.mutable_data_ptr());
  for (int64_t u = 0; u < count; ++u) now[row[u]] = steps;
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("stale_rows", TORCH_BOX(&textclf_fast::cpu::stale_rows));
  m.impl("adam_rows_", TORCH_BOX(&textclf_fast::cpu::adam_rows_));
}
