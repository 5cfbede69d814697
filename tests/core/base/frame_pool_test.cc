#include "core/base/frame_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

namespace bottega {
namespace {

#ifndef __SANITIZE_ADDRESS__
TEST(FramePool, AFrameThatIsGivenBackIsTheNextOfItsSize) {
  void* const frame = FramePool::Take(300);
  void* const other = FramePool::Take(1000);
  FramePool::Give(frame, 300);
  FramePool::Give(other, 1000);
  EXPECT_EQ(FramePool::Take(290), frame);
  EXPECT_EQ(FramePool::Take(1000), other);
  FramePool::Give(frame, 290);
  FramePool::Give(other, 1000);
}
#endif

TEST(FramePool, AnySizeIsThereToBeWritten) {
  for (size_t bytes : {1, 127, 128, 129, 8191, 8192, 8193, 1 << 20}) {
    for (int round = 0; round < 2; ++round) {
      void* const frame = FramePool::Take(bytes);
      std::memset(frame, 0xff, bytes);
      FramePool::Give(frame, bytes);
    }
  }
}

// As when a loop's thread has ended and its tasks are destroyed by another.
TEST(FramePool, AFrameMayBeGivenBackByAnotherThread) {
  void* frame = nullptr;
  std::thread([&frame] { frame = FramePool::Take(500); }).join();
  std::memset(frame, 0xff, 500);
  FramePool::Give(frame, 500);
}

}  // namespace
}  // namespace bottega
