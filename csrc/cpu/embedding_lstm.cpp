// A padded batch of token ids through a layer with frozen weights: the layout, the look-up and the recurrence in one
// op.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../tensor_checks.h"
#include "launch.h"
#include "padded_ids.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

Inferred embedding_lstm_inference(const Tensor& table, const Tensor& ids, const std::optional<Tensor>& lengths,
                                  bool batch_first, const Tensor& w_hh, const std::optional<Tensor>& panels,
                                  bool need_output, const std::optional<Tensor>& w_hr) {
  const std::pair<int64_t, int64_t> sizes = check_recurrent(w_hh, w_hr);
  const int64_t directions = sizes.first, hidden = sizes.second;  // a lambda captures no structured bindings in clang
  check_shape(table, "table", {directions, table.dim() == 3 ? table.size(1) : 0, 4 * hidden});
  check_gates_dtype(table, "table", w_hh);
  const int64_t projected = w_hr ? w_hh.size(2) : 0;
  if (computes_as_float(w_hh, w_hr)) {
    const auto [output, h_n, c_n] = embedding_lstm_inference(table, ids, lengths, batch_first, as(kFloat, w_hh),
                                                             std::nullopt, need_output, as(kFloat, w_hr));
    return {as(kBFloat16, output), as(kBFloat16, h_n), as(kBFloat16, c_n)};
  }
  const PaddedIds batch = lay_out_ids(ids, lengths, batch_first, table.size(1));
  const Tensor table_c = dense(table), w_hh_c = dense(w_hh);
  const auto w_hr_c = dense(w_hr);
  Inferred result;
  dispatch(w_hh, "w_hh", [&]<class T>(T) {
    if (panels) check_panels<T>(*panels, w_hh, directions, {hidden, projected});
    const auto run = [&](LstmForward<T> problem) {
      problem.w_hh = data<T>(w_hh_c);
      problem.w_hr = data<T>(w_hr_c);
      run_forward<T>(problem, data<T>(panels));
    };
    result = infer_padded<T>(batch, table_c, w_hh, need_output, run, projected);
  });
  return result;
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("embedding_lstm_inference", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_inference));
}
