#include "core/service/load_bar.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace bottega {

void LoadBar::Update(uint64_t loaded, uint64_t expected, Clock::time_point now) {
  if (loaded > loaded_) {
    if (advanced_ == Clock::duration::zero()) begun_ = now;
    advanced_ += std::min(now - looked_, kLook);
  }
  looked_ = now;
  loaded_ = loaded;
  if (!bar_ && advanced_ >= kPatience && loaded < expected) bar_.emplace("loading", to_, begun_);
  if (bar_) bar_->Update(loaded, expected);
}

LoadWatch::LoadWatch(const LoadProgress& load, std::FILE* to)
    : load_(load), bar_(to), thread_([this](const std::stop_token& stop) { Watch(stop); }) {}

LoadWatch::~LoadWatch() {
  thread_.request_stop();
  thread_.join();
}

void LoadWatch::Watch(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  do {
    wake.wait_for(lock, stop, LoadBar::kLook, [] { return false; });
    bar_.Update(static_cast<uint64_t>(load_.loaded()), static_cast<uint64_t>(load_.expected()));
  } while (!stop.stop_requested());
}

}  // namespace bottega
