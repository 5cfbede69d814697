#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace bottega {

// A load that has not advanced for so long is given up: by /live, and by clients that wait for it.
inline constexpr std::chrono::minutes kLoadStallMax{5};

// How much of what a process is to load is loaded, in bytes: those who read add what they have
// read (and take it back when they let go of it), those who know what is to come say so. Any
// thread.
class LoadProgress {
 public:
  using Clock = std::chrono::steady_clock;

  // `bytes` more are to be loaded, or fewer.
  void Expect(int64_t bytes) {
    expected_ += bytes;
    Touch();
  }
  // `bytes` more are loaded, or fewer.
  void Add(int64_t bytes) {
    loaded_ += bytes;
    Touch();
  }

  int64_t expected() const { return expected_; }
  // At most what is expected.
  int64_t loaded() const {
    const int64_t loaded = loaded_, expected = expected_;
    return loaded < expected ? loaded : expected;
  }
  // 0 to 1; 0 while nothing is expected.
  double ratio() const {
    const int64_t expected = expected_;
    if (expected <= 0) return 0;
    return static_cast<double>(loaded()) / static_cast<double>(expected);
  }
  // Something is to come, and nothing has come for `limit`.
  bool Stalled(Clock::duration limit, Clock::time_point now = Clock::now()) const {
    return loaded_ < expected_ && now - Clock::time_point(Clock::duration(touched_)) > limit;
  }

 private:
  void Touch() { touched_ = Clock::now().time_since_epoch().count(); }

  std::atomic<int64_t> expected_ = 0;
  std::atomic<int64_t> loaded_ = 0;
  std::atomic<Clock::rep> touched_ = 0;  // the last change
};

// Bytes that count as loaded for as long as this lives.
class LoadedBytes {
 public:
  LoadedBytes() = default;
  // `progress` may be null: then nobody counts. Else it outlives this.
  explicit LoadedBytes(LoadProgress* progress) : progress_(progress) {}
  LoadedBytes(LoadedBytes&& other) noexcept { swap(other); }
  LoadedBytes& operator=(LoadedBytes&& other) noexcept {
    swap(other);
    return *this;
  }
  ~LoadedBytes() {
    if (progress_ != nullptr) progress_->Add(-bytes_);
  }

  // Any thread, while nobody moves it.
  void Add(int64_t bytes) {
    bytes_ += bytes;
    if (progress_ != nullptr) progress_->Add(bytes);
  }

 private:
  void swap(LoadedBytes& other) {
    LoadProgress* const progress = progress_;
    progress_ = other.progress_;
    other.progress_ = progress;
    bytes_ = other.bytes_.exchange(bytes_);
  }
  LoadProgress* progress_ = nullptr;
  std::atomic<int64_t> bytes_ = 0;
};

}  // namespace bottega
