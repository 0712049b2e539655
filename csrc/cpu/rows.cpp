#include "rows.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

constexpr int64_t kAhead = 8;  // rows: at 400 bytes each, as many lines as a core waits for at a time

// Threads take some 64 kB at least: a few us of copying.
int64_t grain(int64_t row_bytes) { return std::max<int64_t>(1, (int64_t(1) << 16) / std::max<int64_t>(1, row_bytes)); }

}  // namespace

const int64_t* check_rows(const Tensor& rows, const char* name, int64_t count, int64_t table_rows) {
  check_int64_vector(rows, name);
  STD_TORCH_CHECK(rows.is_cpu() && rows.is_contiguous(), name, ": expected a contiguous tensor on the CPU");
  check_shape(rows, name, {count});
  const auto* row = data<int64_t>(rows);
  for (int64_t u = 0; u < count; ++u)
    STD_TORCH_CHECK(uint64_t(row[u]) < uint64_t(table_rows), name, ": ", name, "[", u, "] = ", row[u],
                    ", expected 0 <= row < ", table_rows);
  return row;
}

Tensor gather_rows(const Tensor& table, const Tensor& rows, int64_t) {
  STD_TORCH_CHECK(table.dim() == 2, "table: expected shape (V, E), got ", shape_text(table));
  const int64_t* row = check_rows(rows, "rows", rows.numel(), table.size(0));
  const Tensor table_c = dense(table);
  Tensor values = uninitialized(table, {rows.size(0), table.size(1)});
  const int64_t bytes = table.size(1) * int64_t(table.element_size());
  const char* from = data<char>(table_c);
  char* to = mutable_data<char>(values);
  torch::stable::parallel_for(0, rows.size(0), grain(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      // Rows come from anywhere in the table, which a step's other tensors have driven out of the cache.
      if (u + kAhead < end)
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(from + row[u + kAhead] * bytes + b);
      std::memcpy(to + u * bytes, from + row[u] * bytes, size_t(bytes));
    }
  });
  return values;
}

Tensor scatter_rows(const Tensor& values, const Tensor& rows, int64_t count, int64_t skip) {
  STD_TORCH_CHECK(values.dim() == 2, "values: expected shape (U, E), got ", shape_text(values));
  STD_TORCH_CHECK(count >= 0, "count: expected at least 0, got ", count);
  const int64_t* row = check_rows(rows, "rows", values.size(0), count);
  const Tensor values_c = dense(values);
  Tensor table = new_passing(values, {count, values.size(1)});
  const int64_t bytes = values.size(1) * int64_t(values.element_size());
  const char* from = data<char>(values_c);
  char* to = mutable_data<char>(table);
  torch::stable::parallel_for(0, count, grain(bytes), [&](int64_t begin, int64_t end) {
    std::memset(to + begin * bytes, 0, size_t((end - begin) * bytes));
  });
  torch::stable::parallel_for(0, rows.size(0), grain(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u)
      if (row[u] != skip) std::memcpy(to + row[u] * bytes, from + u * bytes, size_t(bytes));
  });
  return table;
}

namespace {

Tensor new_passing_op(const Tensor& like, std::vector<int64_t> size) {
  for (const int64_t n : size) STD_TORCH_CHECK(n >= 0, "size: expected at least 0, got ", n);
  return new_passing(like, size);
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("gather_rows", TORCH_BOX(&textclf_fast::cpu::gather_rows));
  m.impl("new_passing", TORCH_BOX(&textclf_fast::cpu::new_passing_op));
  m.impl("scatter_rows", TORCH_BOX(&textclf_fast::cpu::scatter_rows));
}
