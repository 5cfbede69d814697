#include "core/service/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include "core/base/time.h"

namespace bottega {
namespace {

constexpr int kWidth = 30;
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr double kGiB = 1u << 30;

}  // namespace

ProgressBar::ProgressBar(std::string what, std::FILE* to, Clock::time_point start)
    : what_(std::move(what)), to_(to), terminal_(::isatty(::fileno(to)) == 1), start_(start) {}

ProgressBar::~ProgressBar() {
  if (open_) std::fputc('\n', to_);
}

void ProgressBar::Update(uint64_t done, uint64_t total) {
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  Show(share, fmt::format("  {:.2f} of {:.2f} GiB", static_cast<double>(done) / kGiB,
                          static_cast<double>(total) / kGiB));
}

void ProgressBar::Update(double share) { Show(share, ""); }

void ProgressBar::Show(double share, const std::string& amount) {
  if (terminal_) return DrawBar(share, amount);
  const int tenths = static_cast<int>(share * 10);
  if (tenths <= tenths_) return;
  tenths_ = tenths;
  std::fprintf(to_, "%s %d %%\n", what_.c_str(), tenths * 10);
}

// The cursor rests at the beginning of the line: a line of somebody else takes the bar's place, and
// the bar goes on below it.
void ProgressBar::DrawBar(double share, const std::string& amount) {
  const auto now = Clock::now();
  if (share < 1 ? now - drawn_ < kRedraw : whole_) return;
  drawn_ = now;
  whole_ = share >= 1;
  open_ = true;
  const int filled = static_cast<int>(share * kWidth);
  const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                          std::string(static_cast<size_t>(kWidth - filled), '.');
  const double seconds = Seconds(now - start_);
  const double left = share > 0.01 ? seconds / share - seconds : 0;
  std::fprintf(to_, "\r%s [%s] %3.0f %%%s  %.0f s left\033[K\r", what_.c_str(), bar.c_str(),
               share * 100, amount.c_str(), left);
  std::fflush(to_);
}

}  // namespace bottega
