// What `bottega bench` computes and refuses; tests/clients/bench_test.py runs it whole.

#include "cli/bench.h"

#include "cli/bench_options.h"
#include "cli/bench_reader.h"
#include "cli/bench_report.h"
#include "cli/distribution.h"
#include "cli/json_file.h"
#include "cli/mixed_load.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

using testing::AllOf;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Distribution, QuantilesAreNumpys) {
  const std::vector<double> sorted = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0.9), 6.8);  // between the third and the fourth, at 2.7
  EXPECT_DOUBLE_EQ(Quantile(sorted, 1), 8);
  EXPECT_DOUBLE_EQ(Quantile({5}, 0.99), 5);
}

TEST(Distribution, OfValuesInAnyOrderAndOfNone) {
  const Distribution d = DistributionOf({8, 1, 4, 2});
  EXPECT_EQ(d.count, 4u);
  EXPECT_DOUBLE_EQ(d.mean, 3.75);
  EXPECT_DOUBLE_EQ(d.min, 1);
  EXPECT_DOUBLE_EQ(d.p50, 3);
  EXPECT_DOUBLE_EQ(d.max, 8);
  EXPECT_EQ(DistributionOf({}).count, 0u);
  EXPECT_EQ(Median({}), 0);
}

TEST(MixedLoad, ArrivesAtItsRateAndWithinItsLengths) {
  const MixedLoad load{.requests_per_s = 50, .seconds = 200};
  const std::vector<RequestArrival> arrivals = PoissonArrivals(load);
  EXPECT_NEAR(static_cast<double>(arrivals.size()), 10'000, 400);  // four standard deviations
  double last = 0, prompts = 0, answers = 0, squares = 0;
  for (const RequestArrival& arrival : arrivals) {
    ASSERT_GE(arrival.at_s, last);
    ASSERT_LT(arrival.at_s, 200);
    ASSERT_TRUE(arrival.prompt >= 16 && arrival.prompt <= 256);
    ASSERT_TRUE(arrival.answer >= 8 && arrival.answer <= 64);
    squares += (arrival.at_s - last) * (arrival.at_s - last);
    prompts += static_cast<double>(arrival.prompt);
    answers += static_cast<double>(arrival.answer);
    last = arrival.at_s;
  }
  const double count = static_cast<double>(arrivals.size());
  EXPECT_NEAR(prompts / count / load.prompt.Mean(), 1, 0.05);
  EXPECT_NEAR(answers / count / load.answer.Mean(), 1, 0.05);
  EXPECT_NEAR(squares / count * 50 * 50, 2, 0.2);  // exponential gaps: mean square 2 / rate^2
}

TEST(MixedLoad, EqualSeedsAreEqual) {
  MixedLoad load{.requests_per_s = 3, .seconds = 10};
  const auto first = PoissonArrivals(load), again = PoissonArrivals(load);
  ASSERT_FALSE(first.empty());
  EXPECT_EQ(first.back().at_s, again.back().at_s);
  load.seed = 2;
  EXPECT_NE(first.back().at_s, PoissonArrivals(load).back().at_s);
  load.requests_per_s = 0;
  EXPECT_TRUE(PoissonArrivals(load).empty());
  EXPECT_DOUBLE_EQ((LengthRange{7, 7}.Mean()), 7);
}

TEST(Work, HasANameAndRoomForAll) {
  EXPECT_EQ((Work{.prompt = 512}.Name()), "prefill 512");
  EXPECT_EQ((Work{Work::Kind::kDecode, 8, 16, 32}.Name()), "decode 8");
  EXPECT_EQ((Work{Work::Kind::kDecode, 8, 4096, 32}.Name()), "decode 8 at 4096");
  EXPECT_EQ((Work{.prompt = 512}.TokensOfASequence()), 513);
  EXPECT_EQ((Work{Work::Kind::kDecode, 1, 16, 32}.TokensOfASequence()), 16 + 32 + 1 + 20);
  EXPECT_EQ((Work{Work::Kind::kDecode, 4, 1024, 32}.TokensOfASequence()), 1024 + 32 + 1 + 32);
}

// Rounds of 100, 50 and 200 tokens in a second, each with a floor of its own.
MeasuredWork ThreeRounds() {
  MeasuredWork measured{.work = {Work::Kind::kDecode, 2, 16, 10}};
  for (double tokens : {100.0, 50.0, 200.0}) {
    measured.samples.push_back({.rates = {30e9, 300e9, 1500e9},
                                .tokens = tokens,
                                .seconds = 1,
                                .floor_s = tokens == 50 ? 0.2 : 0.8,
                                .between_tokens_s = {0.01, 0.02}});
  }
  return measured;
}

TEST(BenchReport, TellsMediansOverRounds) {
  const WorkSummary s = Summarise(ThreeRounds());
  EXPECT_DOUBLE_EQ(s.tokens_per_s, 100);
  EXPECT_DOUBLE_EQ(s.least, 50);
  EXPECT_DOUBLE_EQ(s.most, 200);
  EXPECT_DOUBLE_EQ(s.floor_share, 0.8);
  EXPECT_DOUBLE_EQ(s.floor_tokens_per_s, 250);  // of 125, 250, 250
  EXPECT_EQ(s.between_tokens_s.count, 6u);
  EXPECT_THAT(WorkText(ThreeRounds()),
              AllOf(HasSubstr("decode 2 "), HasSubstr(" 100.0 "), HasSubstr("50.0 - 200.0"),
                    HasSubstr("250.0"), HasSubstr("80 %"), HasSubstr("15.0 ms")));
}

TEST(BenchReport, ThreeDigitsOfTime) {
  EXPECT_EQ(TimeText(0.5124), "512 ms");
  EXPECT_EQ(TimeText(0.0764), "76.4 ms");
  EXPECT_EQ(TimeText(0.00015), "0.15 ms");
  EXPECT_EQ(TimeText(1.254), "1.25 s");
}

TEST(BenchReport, PlanReadsWhatBenchWrites) {
  BenchReport report{.weights = "int8", .rates = {33e9, 345e9, 1480e9}};
  report.works = {ThreeRounds()};
  report.works[0].work.sequences = 8;
  const auto figures = ParseBenchFigures(BenchJson(report).dump(), "bench.json");
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_EQ(figures->weights, WeightFormat::kInt8);
  EXPECT_DOUBLE_EQ(figures->rates.int8_ops_per_s, 1480e9);
  const FloorShares typical = TypicalShares(WeightFormat::kInt8);
  EXPECT_THAT(figures->shares.decode, ElementsAre(typical.decode[0], 0.8, typical.decode[2]));
  EXPECT_DOUBLE_EQ(figures->shares.prefill, typical.prefill);
}

TEST(BenchReader, RefusesWhatIsNoBench) {
  const auto why = [](const char* text) {
    return std::string(ParseBenchFigures(text, "x.json").status().message());
  };
  EXPECT_THAT(why("[]"), HasSubstr("--bench x.json"));
  EXPECT_THAT(why("{}"), HasSubstr("\"rates\""));
  for (const char* rates :
       {R"({"read_bytes_per_s": 1, "f32_ops_per_s": 1})",
        R"({"read_bytes_per_s": 1, "f32_ops_per_s": 1, "int8_ops_per_s": 0})"}) {
    EXPECT_THAT(
        why((R"({"model": {"weights": "bf16"}, "works": [], "rates": )" + std::string(rates) + "}")
                .c_str()),
        HasSubstr("\"rates\" has no int8 rate"));
  }
  EXPECT_THAT(why(R"({"rates": {"read_bytes_per_s": 1, "f32_ops_per_s": 1, "int8_ops_per_s": 1}})"),
              HasSubstr("\"weights\""));
  EXPECT_THAT(why(R"({"rates": {"read_bytes_per_s": 1, "f32_ops_per_s": 1, "int8_ops_per_s": 1},
                      "model": {"weights": "int8"}, "works": 3})"),
              HasSubstr("\"works\" is no list"));
  EXPECT_THAT(std::string(ReadBenchFigures("/nonexistent/x.json").status().message()),
              HasSubstr("--bench /nonexistent/x.json"));
}

TEST(BenchOptions, ListsOfNumbers) {
  EXPECT_THAT(*ParseCounts("--decode", "1,2,32", 1, 64), ElementsAre(1, 2, 32));
  EXPECT_THAT(*ParseCounts("--context", "4K", 1, 1 << 20), ElementsAre(4096));
  EXPECT_TRUE(ParseCounts("--decode", "none", 1, 64)->empty());
  for (const char* wrong : {"", "1,", "0", "65", "x", "1 2", "-1"}) {
    const auto counts = ParseCounts("--decode", wrong, 1, 64);
    ASSERT_FALSE(counts.ok()) << wrong;
    EXPECT_THAT(std::string(counts.status().message()),
                AllOf(HasSubstr("--decode"), HasSubstr("from 1 to 64")))
        << wrong;
  }
  EXPECT_THAT(std::string(ParseCounts("--decode", "2,2", 1, 64).status().message()),
              HasSubstr("2 comes twice"));
}

int Call(std::vector<const char*> arguments, std::string* complaint) {
  arguments.insert(arguments.begin(), "bench");
  testing::internal::CaptureStderr();
  const int code = RunBench(static_cast<int>(arguments.size()), arguments.data());
  *complaint = testing::internal::GetCapturedStderr();
  return code;
}

// All before a model is opened: "model" is none.
TEST(BenchOptions, AreRefusedAtOnceWithAReason) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "no model"},
      {{"model", "--decode", "65"}, "--decode: \"65\""},
      {{"model", "--decode", "8", "--max-num-seqs", "4"}, "from 1 to 4"},
      {{"model", "--rounds", "0"}, "--rounds: 0 is not in 1 .. 1000"},
      {{"model", "--mixed", "-1s"}, "--mixed"},
      {{"model", "--prefill", "none"}, "give --mixed-rate"},
      {{"model", "--prefill", "none", "--decode", "none", "--mixed", "0s"}, "nothing to measure"},
      {{"model", "--mixed", "1h", "--mixed-rate", "1000"}, "more than 100000 requests"},
      {{"model", "--json", "/nonexistent/x.json"}, "--json /nonexistent/x.json: no such folder"},
      {{"model", "--json", "/tmp"}, "--json /tmp: a folder"},
      {{"model", "--json", "/tmp/x.json/"}, "--json /tmp/x.json/: a folder"},
      {{"model", "--json", "/dev/null"}, "--json /dev/null: no regular file"},
      {{"model", "--round", "2"}, "did you mean \"rounds\""}};
  for (const auto& [arguments, why] : cases) {
    std::string complaint;
    EXPECT_EQ(Call(arguments, &complaint), 2) << complaint;
    EXPECT_THAT(complaint, HasSubstr(why));
  }
}

TEST(BenchOptions, MemoryIsComparedWithWhatTheWorksNeed) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  EXPECT_TRUE(CheckBenchMemory(4 * kGiB, 16 * kGiB, 24 * kGiB).ok());
  EXPECT_TRUE(CheckBenchMemory(4 * kGiB, 16 * kGiB, 0).ok());
  const absl::Status refused = CheckBenchMemory(100 * kGiB, 16 * kGiB, 24 * kGiB);
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("need 116.50 GiB: 100.00 of KV cache, 16.00 of weights"),
                    HasSubstr("may use 24.00"), HasSubstr("--decode")));
}

TEST(JsonFile, AFailureLeavesTheOldFileAndNothingElse) {
  TempDir dir;
  const std::string path = dir / "x.json";
  ASSERT_TRUE(WriteJsonFile("--json", path, {{"a", 1}}).ok());
  const std::string before = ReadFileBytes(path);
  std::filesystem::create_symlink("/dev/full", path + ".new");
  const absl::Status full = WriteJsonFile("--json", path, {{"a", 2}});
  EXPECT_TRUE(absl::IsInternal(full));  // exit code 1: not the user's mistake
  EXPECT_THAT(std::string(full.message()),
              AllOf(HasSubstr("--json: cannot write " + path), HasSubstr("No space left")));
  EXPECT_EQ(ReadFileBytes(path), before);
  EXPECT_FALSE(std::filesystem::is_symlink(path + ".new"));

  std::filesystem::create_directories(dir / "folder/full");
  EXPECT_FALSE(WriteJsonFile("--json", dir / "folder", {}).ok());
  EXPECT_FALSE(std::filesystem::exists(dir / "folder.new"));
}

}  // namespace
}  // namespace bottega
