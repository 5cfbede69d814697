#pragma once

#include <cstddef>

namespace bottega {

// Memory of coroutine frames. What is given back is kept for the next frame of about its size, by
// thread: a loop's tasks live and die on its thread, so a loop that has run through its work once
// allocates no more frames. Holds at most what was live at once; the thread's end frees it.
// Without effect under the address sanitizer, which could not tell a dead frame from a new one.
class FramePool {
 public:
  static void* Take(size_t bytes);
  static void Give(void* frame, size_t bytes);
};

}  // namespace bottega
