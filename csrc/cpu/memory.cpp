#include "memory.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <memory>
#include <new>

namespace textclf_fast::cpu {
namespace {

// Whole cache lines, so that no two jobs write to one.
constexpr std::align_val_t kLine{64};
constexpr size_t kMostKept = size_t(64) << 20;
constexpr size_t kHugePage = size_t(2) << 20;

struct Free {
  void operator()(void* p) const { ::operator delete(p, kLine); }
};
struct Block {
  std::unique_ptr<void, Free> data;
  size_t bytes = 0;
};
thread_local Block kept_blocks[size_t(ScratchUse::kCount)];

void* allocate(size_t bytes) {
  void* data = ::operator new(bytes, kLine);
  advise_huge_pages(data, bytes);
  return data;
}

}  // namespace

Scratch::Scratch(ScratchUse use, size_t bytes) : kept_(bytes <= kMostKept) {
  if (!kept_) {
    data_ = allocate(bytes);
    return;
  }
  Block& block = kept_blocks[size_t(use)];
  if (block.bytes < bytes) {
    block = Block{};  // given back first, and nothing is left where the next line throws
    block.data.reset(allocate(bytes));
    block.bytes = bytes;
  }
  data_ = block.data.get();
}

Scratch::~Scratch() {
  if (!kept_) Free{}(data_);
}

void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < 2 * kHugePage) return;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace textclf_fast::cpu
