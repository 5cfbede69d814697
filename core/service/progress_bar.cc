#include "core/service/progress_bar.h"

#include <unistd.h>

#include "core/base/time.h"

namespace bottega {
namespace {

constexpr int kWidth = 30;
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr double kGiB = 1u << 30;

}  // namespace

ProgressBar::ProgressBar(std::string what, std::FILE* to)
    : what_(std::move(what)), to_(to), terminal_(::isatty(::fileno(to)) == 1) {}

ProgressBar::~ProgressBar() {
  if (open_) std::fputc('\n', to_);
}

void ProgressBar::Update(uint64_t done, uint64_t total) {
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  if (terminal_) return DrawBar(share, done, total);
  const int tenths = static_cast<int>(share * 10);
  if (tenths <= tenths_) return;
  tenths_ = tenths;
  std::fprintf(to_, "%s %d %%\n", what_.c_str(), tenths * 10);
}

void ProgressBar::DrawBar(double share, uint64_t done, uint64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (done < total && now - drawn_ < kRedraw) return;
  drawn_ = now;
  open_ = true;
  const int filled = static_cast<int>(share * kWidth);
  const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                          std::string(static_cast<size_t>(kWidth - filled), '.');
  const double seconds = Seconds(now - start_);
  const double left = share > 0.01 ? seconds / share - seconds : 0;
  std::fprintf(to_, "\r%s [%s] %3.0f %%  %.2f of %.2f GiB  %.0f s left ", what_.c_str(),
               bar.c_str(), share * 100, static_cast<double>(done) / kGiB,
               static_cast<double>(total) / kGiB, left);
  std::fflush(to_);
}

}  // namespace bottega
