// Rows of a table by number, and their gradient: see csrc/ops.cpp.
#pragma once

#include <cstdint>

#include "../tensor_checks.h"

namespace textclf_fast::cpu {

// rows (count) int64, contiguous, on the CPU, each in 0 .. table_rows - 1; else throws.
const int64_t* check_rows(const Tensor& rows, const char* name, int64_t count, int64_t table_rows);

Tensor gather_rows(const Tensor& table, const Tensor& rows, int64_t no_grad);
Tensor scatter_rows(const Tensor& values, const Tensor& rows, int64_t count, int64_t skip);

}  // namespace textclf_fast::cpu
