#include "memory.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#endif

#include <atomic>
#include <cstring>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace textclf_fast::cpu {
namespace {

// Whole cache lines, so that no two jobs write to one.
constexpr std::align_val_t kLine{64};
constexpr size_t kMostKept = size_t(64) << 20;
constexpr size_t kHugePage = size_t(2) << 20;

std::atomic<bool> poisons{false};

struct Free {
  void operator()(void* p) const { ::operator delete(p, kLine); }
};
struct Block {
  std::unique_ptr<void, Free> data;
  size_t bytes = 0;
};
thread_local Block kept_blocks[size_t(ScratchUse::kCount)];

// Asks for 2 MB pages where memory has not been written yet: 512 times fewer page faults and address translations. Only
// advice; where the system does not take it, nothing changes.
void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

void* allocate(size_t bytes) {
  void* data = ::operator new(bytes, kLine);
  advise_huge_pages(data, bytes);
  return data;
}

constexpr size_t kHeader = 64;  // before a block's data: its size

size_t& size_of(void* data) { return *reinterpret_cast<size_t*>(static_cast<char*>(data) - kHeader); }
void free_block(void* data) {
  ASAN_UNPOISON_MEMORY_REGION(data, size_of(data));
  Free{}(static_cast<char*>(data) - kHeader);
}

// Blocks that nobody uses, the ones given back last at the end.
struct KeptBlocks {
  std::mutex mutex;
  std::vector<void*> blocks;
  size_t bytes = 0;
};
KeptBlocks& kept() {
  static auto* blocks = new KeptBlocks;  // never destroyed: tensors may die after static objects
  return *blocks;
}

// Up to an eighth more, so that batches of a little more or less text find each other's blocks.
size_t rounded(size_t bytes) {
  size_t step = kHeader;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

void* take_rounded(size_t bytes, BlockFit fit) {
  const size_t most = fit == BlockFit::kTight ? bytes : 2 * bytes;
  {
    KeptBlocks& k = kept();
    const std::lock_guard<std::mutex> lock(k.mutex);
    for (auto block = k.blocks.rbegin(); block != k.blocks.rend(); ++block)
      if (size_of(*block) >= bytes && size_of(*block) <= most) {
        void* data = *block;
        k.blocks.erase(std::next(block).base());
        k.bytes -= size_of(data);
        ASAN_UNPOISON_MEMORY_REGION(data, size_of(data));
        return data;
      }
  }
  void* data = static_cast<char*>(allocate(bytes + kHeader)) + kHeader;
  size_of(data) = bytes;
  return data;
}

}  // namespace

void poison(void* data, size_t bytes) {
  if (bytes > 0 && poisons.load(std::memory_order_relaxed)) std::memset(data, 0xff, bytes);
}

void* take_block(size_t bytes, BlockFit fit) {
  void* data = take_rounded(rounded(bytes), fit);
  poison(data, bytes);
  return data;
}

void give_back_block(void* data) {
  KeptBlocks& k = kept();
  const std::lock_guard<std::mutex> lock(k.mutex);
  k.blocks.push_back(data);
  ASAN_POISON_MEMORY_REGION(data, size_of(data));  // nobody's, for now
  k.bytes += size_of(data);
  while (k.bytes > kMostKeptBlocks) {  // the one unused for longest
    k.bytes -= size_of(k.blocks.front());
    free_block(k.blocks.front());
    k.blocks.erase(k.blocks.begin());
  }
}

Scratch::Scratch(ScratchUse use, size_t bytes) : kept_(bytes <= kMostKept) {
  if (!kept_) {
    data_ = allocate(bytes);
    poison(data_, bytes);
    return;
  }
  Block& block = kept_blocks[size_t(use)];
  if (block.bytes < bytes) {
    block = Block{};  // given back first, and nothing is left where the next line throws
    block.data.reset(allocate(bytes));
    block.bytes = bytes;
  }
  data_ = block.data.get();
  // AddressSanitizer, where the tests are built with it: the rest of a larger block is not this request's.
  ASAN_UNPOISON_MEMORY_REGION(data_, block.bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(data_) + bytes, block.bytes - bytes);
  poison(data_, bytes);
}

Scratch::~Scratch() {
  if (!kept_) Free{}(data_);
}

}  // namespace textclf_fast::cpu

// For Python (textclf_fast/_libraries.py), through ctypes.
extern "C" __attribute__((visibility("default"))) void textclf_fast_poison(int on) { textclf_fast::cpu::poisons = on; }
