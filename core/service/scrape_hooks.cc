#include "core/service/scrape_hooks.h"

#include <prometheus/metric_family.h>

#include <future>
#include <memory>

namespace bottega {

std::vector<prometheus::MetricFamily> ScrapeHooks::Collect() const {
  const auto done = std::make_shared<std::promise<void>>();  // outlives whoever gives up first
  std::future<void> refreshed = done->get_future();
  loop_.Post([this, done] {
    for (const auto& refresh : hooks_) refresh();
    done->set_value();
  });
  refreshed.wait_for(kPatience);
  return {};
}

}  // namespace bottega
