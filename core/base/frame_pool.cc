#include "core/base/frame_pool.h"

#include <array>
#include <new>

namespace bottega {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kPools = false;
#else
constexpr bool kPools = true;
#endif

// Frames are a few hundred bytes; what is larger than the last class is not kept.
constexpr size_t kClassBytes = 128;
constexpr size_t kClasses = 64;

struct FreeFrame {
  FreeFrame* next;
};

struct FreeLists {
  std::array<FreeFrame*, kClasses> of_class{};
  ~FreeLists();
};

thread_local FreeLists free_lists;
// Frames outlive the lists where a static object holds a loop. Has no destructor itself, so it can
// still be read then.
thread_local bool lists_are_gone = false;

FreeLists::~FreeLists() {
  lists_are_gone = true;
  for (FreeFrame* frame : of_class) {
    while (frame != nullptr) {
      FreeFrame* const next = frame->next;
      ::operator delete(frame);
      frame = next;
    }
  }
}

size_t ClassOf(size_t bytes) { return (bytes - 1) / kClassBytes; }

bool Keeps(size_t size_class) { return kPools && size_class < kClasses && !lists_are_gone; }

}  // namespace

void* FramePool::Take(size_t bytes) {
  const size_t size_class = ClassOf(bytes);
  if (!Keeps(size_class)) return ::operator new(bytes);
  FreeFrame*& first = free_lists.of_class[size_class];
  if (first == nullptr) return ::operator new((size_class + 1) * kClassBytes);
  FreeFrame* const frame = first;
  first = frame->next;
  return frame;
}

void FramePool::Give(void* frame, size_t bytes) {
  const size_t size_class = ClassOf(bytes);
  if (!Keeps(size_class)) return ::operator delete(frame);
  FreeFrame*& first = free_lists.of_class[size_class];
  first = new (frame) FreeFrame{first};
}

}  // namespace bottega
