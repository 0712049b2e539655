// cp.async: a copy of 16 bytes whose data is there when it was waited for, and not before.
#pragma once

#include <cstring>

#include "scheduler.h"

namespace emulator {

// What is copied must not change until the copy is waited for, on a GPU as here, where it is read twice to see that.
// Until then the target holds poison.
inline void copy_async_16(void* to, const void* from, const Location& where) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    fail("copy_async_16: an address is no multiple of 16", where);
  PendingCopy copy{to, from, {}};
  std::memcpy(copy.seen, from, 16);
  std::memset(to, 0xff, 16);
  const Unwatched _;
  self->open_copies.push_back(copy);
}

inline void copy_async_commit() {
  const Unwatched _;
  self->copy_groups.push_back(std::move(self->open_copies));
  self->open_copies.clear();
}

// Until at most `pending` groups, the latest, are still under way.
inline void copy_async_wait(size_t pending, const Location& where) {
  auto& groups = self->copy_groups;
  while (groups.size() > pending) {
    for (const PendingCopy& copy : groups.front()) {
      if (std::memcmp(copy.seen, copy.from, 16) != 0)
        fail("copy_async_wait: what was to be copied changed in the meantime", where);
      std::memcpy(copy.to, copy.seen, 16);
    }
    const Unwatched _;
    groups.erase(groups.begin());
  }
}

}  // namespace emulator
