#include "launch.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "kernels.h"

namespace textclf_fast::cpu {
namespace {

// Whole cache lines, so that no two jobs write to one.
constexpr std::align_val_t kLine{64};

template <class T>
struct Free {
  void operator()(T* p) const { ::operator delete[](p, kLine); }
};
template <class T>
using Buffer = std::unique_ptr<T[], Free<T>>;
template <class T>
Buffer<T> allocate(int64_t count) {
  return Buffer<T>(static_cast<T*>(::operator new[](size_t(count) * sizeof(T), kLine)));
}

// Below this many multiply-adds a call is done by one thread: waking a second one costs some 5 us, in which a core does
// about 2^19 of them (100 G a second).
constexpr int64_t kWorthAThread = int64_t(1) << 19;

// How a layer is shared out: every range of rows in every direction is a job, and `parts` threads share each.
struct Plan {
  std::vector<RowRange> jobs;
  int64_t parts;
};

// Contiguous ranges of rows with about equal numbers of positions.
std::vector<int64_t> split_rows(const LstmShape& shape, int64_t ranges) {
  std::vector<int64_t> bounds{0};
  // Row b is alive at the steps with batch_sizes[t] > b; walked from the last (shortest) row to the first.
  std::vector<int64_t> lengths(size_t(shape.rows), 0);
  for (int64_t t = shape.steps, row = 0; t > 0 && row < shape.rows; --t)
    for (; row < shape.batch_sizes[t - 1]; ++row) lengths[size_t(row)] = t;
  int64_t done = 0;
  for (int64_t row = 0; row < shape.rows && int64_t(bounds.size()) < ranges; ++row) {
    done += lengths[size_t(row)];
    if (done * ranges >= int64_t(bounds.size()) * shape.positions) bounds.push_back(row + 1);
  }
  if (bounds.back() < shape.rows) bounds.push_back(shape.rows);
  return bounds;
}

Plan make_plan(const LstmShape& shape, int64_t max_parts) {
  const int64_t work = shape.directions * shape.positions * 4 * shape.hidden * shape.hidden;
  const int64_t threads = std::clamp<int64_t>(work / kWorthAThread, 1, torch::stable::get_num_threads());
  const int64_t per_direction = (threads + shape.directions - 1) / shape.directions;
  // With one or two rows a thread, a step is bound by reading W_hh: threads that share the units read a part of it
  // each. Measured on two threads, H = 64 to 512: units win up to 4 rows (1.0x to 1.7x), rows from 8 on.
  const bool share_units = shape.rows <= 2 * per_direction;
  Plan plan{{}, share_units ? std::min(per_direction, max_parts) : 1};
  const auto bounds = split_rows(shape, plan.parts > 1 ? 1 : std::min(per_direction, shape.rows));
  for (int64_t direction = 0; direction < shape.directions; ++direction)
    for (size_t i = 0; i + 1 < bounds.size(); ++i) plan.jobs.push_back({direction, bounds[i], bounds[i + 1]});
  return plan;
}

// Packs W_hh, then runs every job; `pack(direction, begin, end, panels)`, `run(job, panels, scratch, team, member)`.
template <class T, class Pack, class Run>
void run_jobs(const KernelTable<T>& k, const LstmShape& shape, int64_t panel_size, int64_t units, const Pack& pack,
              const Run& run) {
  if (shape.rows == 0) return;
  const auto [jobs, parts] = make_plan(shape, units);
  const auto panels = allocate<T>(shape.directions * panel_size);
  // Copying is bound by memory, not arithmetic: threads pay from about 2^17 numbers on.
  const int64_t unit_grain = std::max<int64_t>(1, (int64_t(1) << 17) * units / std::max<int64_t>(panel_size, 1));
  torch::stable::parallel_for(0, shape.directions * units, unit_grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      pack(i / units, i % units, i % units + 1, panels.get() + (i / units) * panel_size);
  });

  constexpr int64_t kNumbersInLine = 64 / sizeof(T);
  std::vector<int64_t> starts{0};
  for (const RowRange& job : jobs) {
    const int64_t size = k.scratch_size(job.end - job.begin, shape.hidden);
    starts.push_back(starts.back() + (size + kNumbersInLine - 1) / kNumbersInLine * kNumbersInLine);
  }
  const auto scratch = allocate<T>(starts.back());
  // A team's counters: one line for each part and one for `done`.
  std::vector<int64_t> counters(jobs.size() * size_t(parts + 1) * Team::kStride, 0);
  torch::stable::parallel_for(0, int64_t(jobs.size()) * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number = i / parts;
      const RowRange& job = jobs[size_t(number)];
      int64_t* own = counters.data() + number * (parts + 1) * Team::kStride;
      const Team team{parts, own, own + parts * Team::kStride};
      run(job, panels.get() + job.direction * panel_size, scratch.get() + starts[size_t(number)], team, i % parts);
    }
  });
}

}  // namespace

template <class T>
void run_forward(const LstmForward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t H = p.shape.hidden;
  run_jobs<T>(
      k, p.shape, k.forward_panel_size(H), k.forward_blocks(H),
      [&](int64_t direction, int64_t begin, int64_t end, T* panels) {
        k.pack_forward(p.w_hh + direction * 4 * H * H, H, begin, end, panels);
      },
      [&](RowRange job, const T* panels, T* scratch, const Team& team, int64_t member) {
        k.forward(p, job, panels, scratch, team, member);
      });
}

template <class T>
void run_backward(const LstmBackward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t H = p.shape.hidden;
  run_jobs<T>(
      k, p.shape, k.backward_panel_size(H), k.backward_groups(H),
      [&](int64_t direction, int64_t begin, int64_t end, T* panels) {
        k.pack_backward(p.w_hh + direction * 4 * H * H, H, begin, end, panels);
      },
      [&](RowRange job, const T* panels, T* scratch, const Team& team, int64_t member) {
        k.backward(p, job, panels, scratch, team, member);
      });
}

template <class T>
void run_weight_grad(const LstmWeightGrad<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const LstmShape& s = p.shape;
  const int64_t rows = 4 * s.hidden;
  const int64_t grain = std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, s.positions * s.hidden));
  torch::stable::parallel_for(0, s.directions * rows, grain, [&](int64_t begin, int64_t end) {
    const auto scratch = allocate<T>(k.weight_grad_scratch_size(s.hidden));
    while (begin < end) {
      const int64_t direction = begin / rows, stop = std::min(end, (direction + 1) * rows);
      k.weight_grad(p, {direction, begin - direction * rows, stop - direction * rows}, scratch.get());
      begin = stop;
    }
  });
}

template void run_forward(const LstmForward<float>&);
template void run_forward(const LstmForward<double>&);
template void run_backward(const LstmBackward<float>&);
template void run_backward(const LstmBackward<double>&);
template void run_weight_grad(const LstmWeightGrad<float>&);
template void run_weight_grad(const LstmWeightGrad<double>&);

}  // namespace textclf_fast::cpu
