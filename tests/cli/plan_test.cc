// `bottega plan`: what fits, what is foretold, what is chosen.

#include "cli/plan.h"

#include "cli/capacity_plan.h"
#include "cli/machine_rates.h"
#include "cli/plan_report.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/footprint.h"
#include "core/model/synthetic_shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bottega {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kGiB = uint64_t{1} << 30;

PlanQuestion EngGpt2(uint64_t memory) {
  return {.config = *ParseModelConfig(*SyntheticShape("enggpt2", std::nullopt), ""),
          .memory_bytes = memory,
          .rates = {33e9, 345e9, 1480e9}};
}

TEST(Plan, CountsWhatIsLeftForConversations) {
  const CapacityPlan plan = MakePlan(EngGpt2(24 * kGiB));
  ASSERT_EQ(plan.formats.size(), 3u);
  EXPECT_FALSE(plan.formats[0].fits());  // 31.5 GB of bf16
  const FormatPlan& int8 = plan.formats[1];
  ASSERT_TRUE(int8.fits());
  const uint64_t room = 24 * kGiB - int8.weight_bytes - kWorkingBytes;
  EXPECT_EQ(int8.room_bytes, static_cast<int64_t>(room));
  ASSERT_EQ(int8.contexts.size(), 5u);
  EXPECT_EQ(int8.contexts[0].context, 4096);
  EXPECT_EQ(int8.contexts[0].sequences, static_cast<int64_t>(room / (4096 * 49152)));
  EXPECT_EQ(int8.contexts[4].context, 40960);
}

TEST(Plan, ForetellsTheFloorTimesTheShare) {
  PlanQuestion question = EngGpt2(24 * kGiB);
  question.context = 16;
  question.measured[WeightFormat::kInt8] = {.prefill = 0.5, .decode = {1, 0.5, 0.25}};
  const FormatPlan int8 = MakePlan(question).formats[1];
  EXPECT_NEAR(int8.decode[0], 11.26, 0.05);
  EXPECT_NEAR(int8.decode[2], 37.2 / 4, 0.05);
  EXPECT_NEAR(int8.prefill, 277.7 / 2, 0.5);
}

TEST(Plan, ChoosesTheMostExactThatFitsAndTheLongestContext) {
  const auto choice = [](double gib) {
    const CapacityPlan plan = MakePlan(EngGpt2(static_cast<uint64_t>(gib * kGiB)));
    return plan.recommendation;
  };
  EXPECT_EQ(choice(64)->weights, WeightFormat::kInt8);
  EXPECT_EQ(choice(64)->context, 40960);
  EXPECT_EQ(choice(64)->sequences, 8);
  EXPECT_EQ(choice(64)->kv_bytes, uint64_t{8} * 40960 * 49152);
  EXPECT_EQ(choice(24)->context, 16384);  // 8 GiB for eight: 32768 would take 12
  EXPECT_EQ(choice(16)->weights, WeightFormat::kInt8);
  EXPECT_EQ(choice(16)->sequences, 1);  // not eight of 4096
  EXPECT_EQ(choice(12)->weights, WeightFormat::kInt4);
  EXPECT_FALSE(choice(4).has_value());
}

TEST(Plan, APackedModelHasItsFormat) {
  PlanQuestion question = EngGpt2(64 * kGiB);
  question.packed_as = WeightFormat::kBF16;
  EXPECT_EQ(MakePlan(question).recommendation->weights, WeightFormat::kBF16);
  question.memory_bytes = 24 * kGiB;
  EXPECT_FALSE(MakePlan(question).recommendation.has_value());
}

TEST(Plan, WidthsThatCannotBeQuantised) {
  PlanQuestion question = EngGpt2(64 * kGiB);
  question.config.expert_width = 1081;
  PlanReport report{.model = "x", .question = question, .plan = MakePlan(question)};
  EXPECT_EQ(report.plan.recommendation->weights, WeightFormat::kBF16);
  EXPECT_THAT(report.Text(), AllOf(HasSubstr("int8   not possible: weights as int8 need"),
                                   HasSubstr("widths cannot be quantised")));
  EXPECT_TRUE(report.Json()["formats"][1].contains("impossible"));
}

TEST(Plan, TextOffersACommandForADirectory) {
  const PlanQuestion question = EngGpt2(24 * kGiB);
  PlanReport report{
      .model = "dir", .servable = true, .question = question, .plan = MakePlan(question)};
  EXPECT_THAT(report.Text(),
              AllOf(HasSubstr("bf16     29.4"), HasSubstr("too much"), HasSubstr("choose    int8"),
                    HasSubstr("bottega serve dir --weights int8 --kv-cache 6144MiB "
                              "--max-model-len 16384")));
  report.servable = false;
  EXPECT_THAT(report.Text(), Not(HasSubstr("bottega serve")));
  EXPECT_EQ(report.Json()["recommendation"]["context"], 16384);
}

int Call(std::vector<const char*> arguments, std::string* out, std::string* complaint) {
  arguments.insert(arguments.begin(), "plan");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = RunPlan(static_cast<int>(arguments.size()), arguments.data());
  *out = testing::internal::GetCapturedStdout();
  *complaint = testing::internal::GetCapturedStderr();
  return code;
}

TEST(PlanCommand, RefusesWithAReason) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "which model?"},
      {{"dir", "--shape", "enggpt2"}, "which model?"},
      {{"--shape", "gpt"}, "no shape \"gpt\""},
      {{"--shape", "enggpt2", "--memory", "much"}, "--memory"},
      {{"--shape", "enggpt2", "--context", "50000"}, "--context 50000: the model has 40960"},
      {{"--shape", "enggpt2", "--bench", "/nonexistent/x"}, "--bench /nonexistent/x"},
      {{"--shape", "enggpt2", "--json", "/tmp"}, "--json /tmp: a folder"},
      {{"--shape", "enggpt2", "--json", "/nonexistent/x"}, "no such folder"}};
  for (const auto& [arguments, why] : cases) {
    std::string out, complaint;
    EXPECT_EQ(Call(arguments, &out, &complaint), 2) << complaint;
    EXPECT_THAT(complaint, HasSubstr(why));
  }
}

// Without a rate, int8 would be free and the plan far too good.
TEST(Plan, EveryInstructionSetHasAnInt8Rate) {
  ThreadPool pool(1);
  for (Isa isa : {Isa::kScalar, BestIsa()}) {
    EXPECT_GT(MeasureInt8Rate(MakeCpu(isa, &pool)), 1e7) << Name(isa);
  }
}

}  // namespace
}  // namespace bottega
