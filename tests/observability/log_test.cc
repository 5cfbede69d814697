#include "observability/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "observability/metrics.h"

namespace bottega {
namespace {

using testing::HasSubstr;
using testing::Not;

struct LogTest : testing::Test {
  LogTest() { CaptureLog(&lines); }
  ~LogTest() override {
    CaptureLog(nullptr);
    OpenLogSink({});
  }
  void Form(LogSinkOptions::Form form) { OpenLogSink({.form = form}); }
  std::string lines;
  const Logger log{"expert", "expert-2"};
};

TEST_F(LogTest, AJsonLineHasItsKeysAndStaysOneLine) {
  Form(LogSinkOptions::Form::kJson);
  log.Info("two\nlines \"quoted\" \\ \x01", "req-1");
  EXPECT_THAT(lines, HasSubstr(R"("level":"info")"));
  EXPECT_THAT(lines, HasSubstr(R"("msg":"two\u000alines \"quoted\" \\ \u0001")"));
  EXPECT_THAT(lines, HasSubstr(R"("role":"expert","worker":"expert-2","request_id":"req-1"})"));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1);
}

TEST_F(LogTest, AJsonLineTellsTheEpochOnceThereIsATable) {
  Form(LogSinkOptions::Form::kJson);
  const Logger copy = log;
  log.Info("before");
  EXPECT_THAT(lines, Not(HasSubstr("epoch")));
  log.SetEpoch(12);
  copy.Info("after");
  EXPECT_THAT(lines, HasSubstr(R"("worker":"expert-2","epoch":12})"));
}

TEST_F(LogTest, TextIsOneLineToo) {
  Form(LogSinkOptions::Form::kText);
  log.Warning("a\nb");
  EXPECT_THAT(lines, HasSubstr("warning expert-2: a b\n"));
}

TEST_F(LogTest, TheLeastLevelHidesButCounts) {
  prometheus::Registry registry;
  metrics::Common common(registry, {});
  Logger counted = log;
  common.CountLines(counted);
  OpenLogSink({.least = LogLevel::kWarning, .form = LogSinkOptions::Form::kText});
  counted.Info("hidden");
  counted.Error("shown");
  EXPECT_THAT(lines, Not(HasSubstr("hidden")));
  EXPECT_THAT(lines, HasSubstr("shown"));
  double info = 0;
  for (const auto& family : registry.Collect()) {
    if (family.name != "bottega_log_messages_total") continue;
    for (const auto& metric : family.metric) {
      if (metric.label[0].value == "info") info = metric.counter.value;
    }
  }
  EXPECT_EQ(info, 1);
}

TEST_F(LogTest, LinesOfThreadsDoNotMix) {
  Form(LogSinkOptions::Form::kText);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 200; ++n) log.Info("0123456789");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 800);
  size_t whole = 0;
  for (size_t at = 0; (at = lines.find(": 0123456789\n", at)) != std::string::npos; ++at) ++whole;
  EXPECT_EQ(whole, 800u);
}

}  // namespace
}  // namespace bottega
