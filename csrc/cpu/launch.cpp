#include "launch.h"

#include <torch/csrc/stable/ops.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "thread_choice.h"

namespace textclf_fast::cpu {
namespace {

// Below this many multiply-adds a call is done by one thread: waking a second one costs some 5 us, in which a core does
// about 2^19 of them (100 G a second).
constexpr int64_t kWorthAThread = int64_t(1) << 19;

// Packs every piece of every direction, panel_size numbers each, in threads where that pays: a core packs some 10 G
// numbers a second.  That is 2^14 of them in less time than waking a thread takes; but what a thread has packed is in
// its cache when it multiplies: with fewer threads a training step of one row, H = 128, took 1.4 % longer.
template <class T>
void pack_all(decltype(KernelTable<T>::pack_forward) pack, int64_t panel_size, int64_t pieces, const Weights<T>& all,
              int64_t directions, const WeightSizes& sizes, T* panels) {
  const int64_t grain = std::max<int64_t>(1, (int64_t(1) << 14) * pieces / std::max<int64_t>(panel_size, 1));
  const int64_t H = sizes.hidden;
  torch::stable::parallel_for(0, directions * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t d = i / pieces;
      const Weights<T> own{all.w_hh + d * 4 * H * sizes.width(), all.w_hr + d * sizes.projected * H,
                           all.w_ih + d * 4 * H * sizes.input};
      pack(own, sizes, i % pieces, panels + d * panel_size);
    }
  });
}

WeightSizes weight_sizes(const LstmShape& s) { return {s.hidden, s.projected, s.input}; }

// A core's own cache; 0 where that is not known.
int64_t cache_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes;
#else
  return 0;
#endif
}

// Kinds of kernels.
template <class T>
constexpr int64_t kForward = std::is_same_v<T, BFloat16> ? 2 : sizeof(T);
template <class T>
constexpr int64_t kBackward = kForward<T> + 16;
constexpr int64_t kInt8Forward = 1;

// How many threads a layer is worth at most.
int64_t worth_threads(const LstmShape& shape) {
  const int64_t work =
      shape.directions * shape.positions * shape.hidden * (4 * (shape.width() + shape.input) + shape.projected);
  return std::clamp<int64_t>(work / kWorthAThread, 1, torch::stable::get_num_threads());
}

// run(threads), by as many as were best so far where steps are short; each kind of kernel learns for itself.
// weight_bytes: of the weights that a step reads.
template <class Run>
void run_with_learned_threads(const LstmShape& s, int64_t kernel, int64_t weight_bytes, const Run& run) {
  const int64_t most = worth_threads(s);
  if (most == 1 || s.rows > kFewRows || weight_bytes > kShortStep || !learns_threads()) return run(most);
  int64_t threads[ThreadChoice::kMost] = {};
  const int count = ThreadChoice::candidates(most, threads);
  ThreadChoice& choice = thread_choice({kernel, s.hidden, s.input, s.projected, s.rows, s.directions, s.steps, most});
  const ThreadChoice::Next next = choice.choose(count);
  const auto start = std::chrono::steady_clock::now();
  run(threads[next.candidate]);
  const std::chrono::duration<float> taken = std::chrono::steady_clock::now() - start;
  if (next.counts) choice.record(next.candidate, taken.count() / float(s.steps));
}

// Has a team of threads compute each direction: run(direction, scratch, team, member).  There are parts for `worth`
// threads, each of them one of `units` or a row at least.  weight_bytes: of a direction's packed W_hh.
template <class ScratchBytes, class Run>
void run_teams(const LstmShape& shape, int64_t worth, int64_t threads, int64_t units, int64_t weight_bytes,
               const ScratchBytes& scratch_bytes, const Run& run) {
  const int64_t D = shape.directions;
  const int64_t parts = std::min((worth + D - 1) / D, std::max(units, shape.rows));
  const int64_t own_bytes = scratch_bytes(parts);
  const bool exceeds_cache = cache_bytes() > 0 && weight_bytes > cache_bytes();
  // A quarter of the cache is for what else a step reads.
  const bool units_fit_cache = weight_bytes > cache_bytes() / 4 * 3 && weight_bytes <= parts * cache_bytes();
  const Scratch scratch(ScratchUse::kTeams, size_t(D * own_bytes));
  std::vector<Team::Progress> progress(size_t(D * parts));
  // Each direction has as many threads as another.
  const int64_t used = threads < D ? threads : (threads + D - 1) / D * D;
  torch::stable::parallel_for(0, D * parts, (D * parts + used - 1) / used, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t direction = i / parts;
      run(direction, scratch.data<char>() + direction * own_bytes,
          Team{parts, progress.data() + direction * parts, exceeds_cache, units_fit_cache}, i % parts);
    }
  });
}

// The last number of packed panels says for which instruction set they are.
template <class T>
T isa_mark() {
  if constexpr (std::is_same_v<T, BFloat16>)
    return {uint16_t(isa_number())};
  else
    return T(isa_number());
}
template <class T>
bool panels_fit(const T* last) {
  const T mark = isa_mark<T>();
  return std::memcmp(last, &mark, sizeof(T)) == 0;
}

}  // namespace

// Few rows wait for the weights, whose W_ih each step would read again.  T = 64, Zen 5: one row 1.1 times as fast at
// I = H = 64, 1.4 at 100 and 128, 1.7 at 256, 1.5 at 300 and 512 (1.0 to 1.2 times in training); two 1.0 to 1.5 times.
// More gain only where the weights come from the third-level cache, and nobody where they stay in the first.  On an Ice
// Lake at I = 300 and H = 384 or 512, which asks for W_hh ahead then (PanelAhead), 8, 16 and 32 rows are 1.08 to 1.18
// times as fast; if the gates are no larger than the memory that is kept from call to call.
bool projects_first(const LstmShape& shape, int64_t number_bytes) {
  const int64_t bytes = 4 * shape.hidden * (shape.hidden + shape.input) * number_bytes;
  if (cache_bytes() == 0 || bytes <= cache_bytes()) return bytes > (int64_t(1) << 16) && shape.rows <= 2;
  const int64_t gates_bytes = shape.directions * shape.positions * 4 * shape.hidden * number_bytes;
  return shape.rows <= 4 || gates_bytes <= int64_t(kMostKeptBlocks);
}

template <class T>
int64_t panels_size(int64_t directions, const WeightSizes& sizes) {
  return directions * kernels<T>().forward_panel_size(sizes) + 1;
}

template <class T>
void pack_panels(const Weights<T>& weights, int64_t directions, const WeightSizes& sizes, T* panels) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t size = k.forward_panel_size(sizes);
  pack_all(k.pack_forward, size, k.forward_pieces(sizes), weights, directions, sizes, panels);
  panels[directions * size] = isa_mark<T>();
}

template <class T>
void run_forward(const LstmForward<T>& p, const T* panels) {
  const KernelTable<T>& k = kernels<T>();
  const WeightSizes sizes = weight_sizes(p.shape);
  const int64_t D = p.shape.directions, size = k.forward_panel_size(sizes);
  if (p.shape.rows == 0) return;
  const bool pack = !panels || !panels_fit(panels + D * size);
  const Scratch packed(ScratchUse::kPanels, pack ? size_t(panels_size<T>(D, sizes)) * sizeof(T) : 0);
  if (pack) {
    pack_panels<T>({p.w_hh, p.w_hr, p.w_ih}, D, sizes, packed.data<T>());
    panels = packed.data<T>();
  }
  const int64_t weight_bytes =
      4 * sizes.hidden * (sizes.width() + (p.projected_x ? 0 : sizes.input)) * int64_t(sizeof(T));
  run_with_learned_threads(p.shape, kForward<T>, weight_bytes, [&](int64_t threads) {
    run_teams(
        p.shape, threads, threads, k.forward_pieces(sizes), weight_bytes,
        [&](int64_t) { return k.forward_scratch_bytes(p.shape); },
        [&](int64_t direction, char* scratch, const Team& team, int64_t member) {
          k.forward(p, direction, panels + direction * size, scratch, team, member);
        });
  });
}

template <class T>
void run_backward(const LstmBackward<T>& p) {
  const KernelTable<T>& k = kernels<T>();
  const WeightSizes sizes = weight_sizes(p.shape);
  const int64_t D = p.shape.directions, size = k.backward_panel_size(sizes);
  if (p.shape.rows == 0) return;
  const Scratch packed(ScratchUse::kPanels, size_t(D * size) * sizeof(T));
  T* panels = packed.data<T>();
  pack_all<T>(k.pack_backward, size, k.backward_pieces(sizes), {p.w_hh, p.w_hr, p.w_ih}, D, sizes, panels);
  const int64_t weight_bytes = 4 * sizes.hidden * sizes.width() * int64_t(sizeof(T));
  // Fewer threads walk the same parts: what sums are made of does not depend on who is fast today.
  run_with_learned_threads(p.shape, kBackward<T>, weight_bytes, [&](int64_t threads) {
    run_teams(
        p.shape, worth_threads(p.shape), threads, k.forward_pieces(sizes), weight_bytes,
        [&](int64_t parts) { return k.backward_scratch_bytes(p.shape, parts, p.index); },
        [&](int64_t direction, char* scratch, const Team& team, int64_t member) {
          k.backward(p, direction, panels + direction * size, scratch, team, member);
        });
  });
}

void run_int8_forward(const LstmForward<float>& p, const Int8Weights& weights) {
  const Int8Kernels& k = int8_kernels();
  if (p.shape.rows == 0) return;
  const int64_t weight_bytes = 4 * p.shape.hidden * p.shape.hidden;
  run_with_learned_threads(p.shape, kInt8Forward, weight_bytes, [&](int64_t threads) {
    run_teams(
        p.shape, threads, threads, Int8Weights::blocks(p.shape.hidden), weight_bytes,
        [&](int64_t) { return k.scratch_bytes(p.shape); },
        [&](int64_t direction, char* scratch, const Team& team, int64_t member) {
          k.forward(p, weights, direction, reinterpret_cast<float*>(scratch), team, member);
        });
  });
}

#define TEXTCLF_INSTANTIATE(T)                                                   \
  template int64_t panels_size<T>(int64_t, const WeightSizes&);                  \
  template void pack_panels(const Weights<T>&, int64_t, const WeightSizes&, T*); \
  template void run_forward(const LstmForward<T>&, const T*);                    \
  template void run_backward(const LstmBackward<T>&);
TEXTCLF_INSTANTIATE(float)
TEXTCLF_INSTANTIATE(double)
TEXTCLF_INSTANTIATE(BFloat16)

}  // namespace textclf_fast::cpu
