// Memory of the CPU ops: what a call needs for itself, and large tensors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textclf_fast::cpu {

// For tests: fills what has just been handed out, and not written yet, with NaN (integers: -1), once that is switched
// on.
void poison(void* data, size_t bytes);

// Bytes for the calling thread until its next request with the same `use`: uninitialized, 64-byte aligned, kept from
// call to call. Freshly mapped memory costs a page fault every 4 kB, which on a virtual machine were seen to take 2 us:
// more than the work done in the page. Requests above 64 MB are not kept.
enum class ScratchUse { kPanels, kTeams, kCount };
class Scratch {
 public:
  Scratch(ScratchUse use, size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  bool kept_;
};

// Memory for large tensors: given back, it is kept for the next one, up to so much in all. The C library gives blocks
// of this size back to the system, call after call, or not, as it happens: a gradient of 4 MB was seen to take 600 us
// to zero, and takes 50 in kept memory; an output of 4 MB met 180 or 280 page faults a call in three processes out of
// four, 0.9 to 1.9 ms of the system's time beside 2.7 ms of work. 64-byte aligned, uninitialized; any thread may give
// it back.
//
// A block may be larger than asked for: by less than an eighth where somebody may keep it for long (tight), up to twice
// as large where it is sure to be given back soon (loose).
constexpr size_t kMostKeptBlocks = size_t(128) << 20;
enum class BlockFit { kLoose, kTight };
void* take_block(size_t bytes, BlockFit fit = BlockFit::kLoose);
void give_back_block(void* data);

}  // namespace textclf_fast::cpu
