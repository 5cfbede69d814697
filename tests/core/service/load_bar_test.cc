#include "core/service/load_bar.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace bottega {
namespace {

using namespace std::chrono_literals;

std::string WrittenBy(const std::function<void(std::FILE*)>& write) {
  std::FILE* file = std::tmpfile();
  write(file);
  std::rewind(file);
  std::string text(1000, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

constexpr uint64_t kAll = 100 << 20;

// Looks at a load that advances by a hundredth each `look`; when the last look was.
LoadBar::Clock::time_point Load(LoadBar& bar, LoadBar::Clock::duration look, int hundredths) {
  LoadBar::Clock::time_point now = LoadBar::Clock::now();
  for (int i = 1; i <= hundredths; ++i) bar.Update(kAll / 100 * i, kAll, now += look);
  return now;
}

TEST(LoadBar, ALongLoadHasALinePerTenPercent) {
  const std::string text = WrittenBy([](std::FILE* file) {
    LoadBar bar(file);
    const auto end = Load(bar, 20ms, 100);
    bar.Update(kAll, kAll, end + 1s);  // after 100 % nothing
  });
  // It had advanced for half a second at a quarter.
  EXPECT_EQ(text,
            "loading 20 %\nloading 30 %\nloading 40 %\nloading 50 %\nloading 60 %\n"
            "loading 70 %\nloading 80 %\nloading 90 %\nloading 100 %\n");
}

TEST(LoadBar, AShortLoadHasNone) {
  EXPECT_EQ(WrittenBy([](std::FILE* file) {
              LoadBar bar(file);
              Load(bar, 4ms, 100);
            }),
            "");
}

// A cluster's experts wait for the router; that is not loading.
TEST(LoadBar, NorHasOneThatWaits) {
  EXPECT_EQ(WrittenBy([](std::FILE* file) {
              LoadBar bar(file);
              auto now = Load(bar, 40ms, 10);
              for (int i = 0; i < 100; ++i) bar.Update(kAll / 10, kAll, now += LoadBar::kLook);
            }),
            "");
}

TEST(LoadWatch, EndsWithALoadThatWasThereAtOnce) {
  LoadProgress load;
  EXPECT_EQ(WrittenBy([&load](std::FILE* file) {
              const LoadWatch watch(load, file);
              load.Expect(1000);
              load.Add(1000);
            }),
            "");
}

}  // namespace
}  // namespace bottega
