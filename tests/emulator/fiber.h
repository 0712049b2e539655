// Fibers: a stack each, and the switch from one to another.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "sanitizers.h"
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 256 << 10;  // red zones around every variable
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kPageBytes = 4096;

// Stacks are kept for the next launch. Below each lies a page that nobody may touch.
class Stacks {
 public:
  static char* get(size_t number) {
    static std::vector<char*> stacks;
    while (stacks.size() <= number) {
      void* memory = mmap(nullptr, kPageBytes + kStackBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED || mprotect(memory, kPageBytes, PROT_NONE) != 0) throw std::bad_alloc();
      stacks.push_back(static_cast<char*>(memory) + kPageBytes);
    }
    return stacks[number];
  }
};

struct Fiber {
  char* stack = nullptr;  // null: the launcher's own
  size_t stack_bytes = 0;
#ifdef __x86_64__
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
#ifdef __SANITIZE_THREAD__
  void* tsan = nullptr;
#endif
};

#ifdef __x86_64__
// Leaves the callee-saved registers on the old stack and takes them from the new one: all that the ABI keeps over a
// call.
__attribute__((naked, noinline)) inline void swap_stacks(void** /*old_pointer*/, void* /*new_pointer*/) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rsp, (%rdi)\n"
      "mov %rsi, %rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
}
#endif

// `entry` never returns; it begins with arrived_first().
inline void prepare(Fiber& fiber, size_t number, void (*entry)()) {
  fiber.stack = Stacks::get(number);
  fiber.stack_bytes = kStackBytes;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);  // of a fiber that was left in the middle of something
#endif
#ifdef __SANITIZE_THREAD__
  fiber.tsan = __tsan_create_fiber(0);
  // New memory in the same place: TSan forgets the fiber that had it before, perhaps of another block.
  if (mmap(fiber.stack, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
           -1, 0) == MAP_FAILED)
    throw std::bad_alloc();
#endif
#ifdef __x86_64__
  // From the top: a word, so that the stack is aligned as after a call; where swap_stacks returns to; six registers.
  void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes);
  std::memset(top - 8, 0, 8 * sizeof(void*));
  top[-2] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = top - 8;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

inline void dispose([[maybe_unused]] Fiber& fiber) {
#ifdef __SANITIZE_THREAD__
  __tsan_destroy_fiber(fiber.tsan);
#endif
}

// The first thing on a new fiber. `launcher` gets the bounds of its stack, if it was the one that came here.
inline void arrived_first([[maybe_unused]] Fiber& launcher) {
#ifdef __SANITIZE_ADDRESS__
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (launcher.stack == nullptr) {
    launcher.stack = static_cast<char*>(const_cast<void*>(stack));
    launcher.stack_bytes = bytes;
  }
#endif
}

// Goes on with `to`; returns when somebody switches back to `from`. last: nobody will.
inline void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool last = false) {
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  // Without the flag a switch would order all that came before it, and no race would ever be seen.
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __x86_64__
  swap_stacks(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

}  // namespace emulator
