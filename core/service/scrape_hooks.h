#pragma once

#include <prometheus/collectable.h>

#include <functional>
#include <list>
#include <vector>

#include "core/base/loop.h"

namespace bottega {

// Brings a process' metrics up to date when they are asked for: what the loop counts in plain
// integers is copied into the registry then, so that a scrape shows the present and an idle process
// copies nothing. Scraped before the registry.
class ScrapeHooks : public prometheus::Collectable {
 public:
  // How long a scrape waits for the loop; a loop that computes longer is shown as it was last seen.
  static constexpr Duration kPatience = std::chrono::milliseconds(250);

  // A registration; ends with the object. Loop thread.
  class Hook {
   public:
    Hook() = default;
    Hook(Hook&& other) noexcept : hooks_(std::exchange(other.hooks_, nullptr)), at_(other.at_) {}
    Hook& operator=(Hook&& other) noexcept {
      std::swap(hooks_, other.hooks_);
      std::swap(at_, other.at_);
      return *this;
    }
    ~Hook() {
      if (hooks_ != nullptr) hooks_->hooks_.erase(at_);
    }

   private:
    friend class ScrapeHooks;
    Hook(ScrapeHooks* hooks, std::list<std::function<void()>>::iterator at)
        : hooks_(hooks), at_(at) {}
    ScrapeHooks* hooks_ = nullptr;
    std::list<std::function<void()>>::iterator at_;
  };

  explicit ScrapeHooks(Loop& loop) : loop_(loop) {}

  [[nodiscard]] Hook Add(std::function<void()> refresh) {
    return Hook(this, hooks_.insert(hooks_.end(), std::move(refresh)));
  }

  // Runs the hooks on the loop and waits for them; has no families of its own. Any thread but the
  // loop's.
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  Loop& loop_;
  std::list<std::function<void()>> hooks_;  // loop thread
};

}  // namespace bottega
