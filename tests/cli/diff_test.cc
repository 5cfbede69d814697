#include "cli/diff.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "cli/trace_diff.h"

namespace bottega {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

struct Outcome {
  int code;
  std::string out, err;
};

class DiffTest : public ::testing::Test {
 protected:
  DiffTest() { std::filesystem::create_directories(folder_); }
  ~DiffTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ / name;
    std::ofstream(path) << text;
    return path;
  }

  Outcome Diff(const std::string& a, const std::string& b) {
    const std::string path_a = Write("a", a), path_b = Write("b", b);
    return Run({"diff", path_a, path_b});
  }

  static Outcome Run(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunDiff(static_cast<int>(argv.size()), argv.data());
    std::fflush(stdout);
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("diff_test_") + testing::UnitTest::GetInstance()->current_test_info()->name());
};

// As a worker writes it: sequences mixed, step by step, layer by layer.
std::vector<std::string> MadeTrace(int sequences, int positions, int layers) {
  std::vector<std::string> lines;
  for (int position = 0; position < positions; ++position) {
    const auto add = [&](int layer, const char* stage) {
      for (int sequence = 0; sequence < sequences; ++sequence) {
        const uint64_t name = 0xfedc000000000000u + static_cast<uint64_t>(sequence);
        const unsigned hash =
            static_cast<unsigned>((sequence * 131 + position) * 131 + layer) * 2654435761u ^
            static_cast<unsigned>(stage[0]);
        lines.push_back(
            fmt::format("{:016x} {} {} {} {:08x}\n", name, position, layer, stage, hash));
      }
    };
    add(-1, "embed");
    for (int layer = 0; layer < layers; ++layer) {
      add(layer, "attend");
      add(layer, "ffn");
    }
  }
  return lines;
}

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}

// Changes the hash of the line that begins with `key`.
void Change(std::vector<std::string>& lines, const std::string& key) {
  const auto line = std::find_if(lines.begin(), lines.end(),
                                 [&](const std::string& l) { return l.starts_with(key + " "); });
  ASSERT_NE(line, lines.end()) << key;
  line->replace(line->size() - 9, 8, "0000beef");
}

TEST_F(DiffTest, EqualTraces) {
  const std::string trace = Join(MadeTrace(3, 4, 2));
  const Outcome outcome = Diff(trace, trace);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "in both: 60 entries of 3 sequences; 0 entries of 0 sequences differ\n");
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_F(DiffTest, OrderOfLinesDoesNotMatter) {
  std::vector<std::string> lines = MadeTrace(5, 6, 3);
  const std::string trace = Join(lines);
  std::shuffle(lines.begin(), lines.end(), std::mt19937(7));
  EXPECT_EQ(Diff(trace, Join(lines)).code, 0);
}

TEST_F(DiffTest, NamesTheFirstInOrderOfComputation) {
  std::vector<std::string> lines = MadeTrace(3, 12, 12);
  const std::string trace = Join(lines);
  // Text order would put layer 10 and position 10 first, and "ffn" before "embed".
  Change(lines, "fedc000000000001 10 0 attend");
  Change(lines, "fedc000000000001 9 10 ffn");
  Change(lines, "fedc000000000001 9 9 ffn");
  Change(lines, "fedc000000000001 9 9 attend");
  Change(lines, "fedc000000000002 3 0 attend");
  Change(lines, "fedc000000000002 3 -1 embed");
  std::shuffle(lines.begin(), lines.end(), std::mt19937(7));
  const Outcome outcome = Diff(trace, Join(lines));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out,
              HasSubstr("sequence fedc000000000001 position 9 layer 9 stage attend: "));
  EXPECT_THAT(outcome.out, HasSubstr(" 0000beef\nsequence fedc000000000002 position 3 layer -1 "
                                     "stage embed: "));
  EXPECT_THAT(outcome.out, HasSubstr("in both: 900 entries of 3 sequences; 6 entries of 2 "
                                     "sequences differ\n"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("only in")));
}

TEST_F(DiffTest, OutsideTheLayersAfterThem) {
  const std::string a =
      "00000000000000aa 0 -1 lm_head 00000001\n00000000000000aa 0 7 ffn 00000002\n";
  const std::string b =
      "00000000000000aa 0 -1 lm_head 00000003\n00000000000000aa 0 7 ffn 00000004\n";
  EXPECT_THAT(Diff(a, b).out, HasSubstr("position 0 layer 7 stage ffn: 00000002 00000004\n"));
}

TEST_F(DiffTest, WhatOnlyOneHasIsCounted) {
  std::vector<std::string> lines = MadeTrace(3, 4, 2);
  const std::string whole = Join(lines);
  lines.resize(lines.size() - 5);
  const Outcome shorter = Diff(whole, Join(lines));
  EXPECT_EQ(shorter.code, 0);
  EXPECT_THAT(shorter.out, HasSubstr("in both: 55 entries of 3 sequences; 0 entries"));
  EXPECT_THAT(shorter.out, HasSubstr("/a: 5 entries\n"));
  EXPECT_THAT(shorter.out, Not(HasSubstr("/b: ")));

  const Outcome extra = Diff(Join(MadeTrace(2, 4, 2)), Join(MadeTrace(3, 4, 2)));
  EXPECT_EQ(extra.code, 0);
  EXPECT_THAT(extra.out, HasSubstr("/b: 20 entries, among them 1 whole sequences\n"));
}

TEST_F(DiffTest, NothingInCommonIsNoSuccess) {
  const Outcome outcome =
      Diff("00000000000000aa 0 -1 embed 00000001\n", "00000000000000bb 0 -1 embed 00000001\n");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("nothing to compare"));
  EXPECT_EQ(Diff("", "").code, 1);
}

// A killed writer leaves half a line; each cut of the last line is one that is left out.
TEST_F(DiffTest, CutOffLastLine) {
  const std::vector<std::string> lines = MadeTrace(2, 2, 1);
  const std::string whole = Join(lines);
  for (size_t missing = 1; missing < lines.back().size(); ++missing) {
    const Outcome outcome = Diff(whole.substr(0, whole.size() - missing), whole);
    EXPECT_EQ(outcome.code, 0) << missing;
    EXPECT_THAT(outcome.err, HasSubstr("/a: the last line is cut off"));
    EXPECT_THAT(outcome.out, HasSubstr("/b: 1 entries\n"));
  }
}

TEST_F(DiffTest, RecomputedRowsThatAgreeAreOne) {
  std::vector<std::string> lines = MadeTrace(2, 3, 2);
  const std::string once = Join(lines);
  lines.insert(lines.end(), lines.begin(), lines.begin() + 7);
  const Outcome outcome = Diff(once, Join(lines));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("in both: 30 entries"));
}

TEST_F(DiffTest, RecomputedRowsThatDifferAreReported) {
  std::vector<std::string> lines = MadeTrace(2, 3, 2);
  const std::string once = Join(lines);
  lines.push_back("fedc000000000001 2 1 ffn 12345678\n");
  lines.push_back("fedc000000000001 1 1 ffn 12345678\n");
  const std::string twice = Join(lines);
  const Outcome one_side = Diff(once, twice);
  EXPECT_EQ(one_side.code, 1);
  EXPECT_THAT(one_side.out, HasSubstr("/b: 2 places with two results"));
  EXPECT_THAT(one_side.out, HasSubstr("sequence fedc000000000001 position 1 layer 1 stage ffn: "));
  EXPECT_THAT(one_side.out, HasSubstr("30 entries of 2 sequences; 2 entries of 1"));
  // The same contradiction on both sides: no parting between them, yet no success.
  const Outcome both_sides = Diff(twice, twice);
  EXPECT_EQ(both_sides.code, 1);
  EXPECT_THAT(both_sides.out, HasSubstr("; 0 entries of 0 sequences differ"));
}

TEST_F(DiffTest, BadLinesAreNamed) {
  const std::string good = "00000000000000aa 0 -1 embed 00000001\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n", "is not \"SEQUENCE POSITION LAYER STAGE HASH\""},
      {"hello\n", "is not \"SEQUENCE"},
      {"00000000000000aa 0 -1 embed\n", "is not \"SEQUENCE"},
      {"00000000000000aa 0 -1 embed 00000001 x\n", "is not \"SEQUENCE"},
      {"aa 0 -1 embed 00000001\n", "SEQUENCE is not 16 hex digits"},
      {"00000000000000ag 0 -1 embed 00000001\n", "SEQUENCE is not 16 hex digits"},
      {"00000000000000aa -1 -1 embed 00000001\n", "POSITION is no position"},
      {"00000000000000aa 99999999999 -1 embed 00000001\n", "POSITION is no position"},
      {"00000000000000aa 0 -2 embed 00000001\n", "LAYER is no layer"},
      {"00000000000000aa 0 1024 ffn 00000001\n", "LAYER is no layer"},
      {"00000000000000aa 0  embed 00000001\n", "LAYER is no layer"},
      {"00000000000000aa 0 0  00000001\n", "STAGE is no stage"},
      {"00000000000000aa 0 0 ffn 0001\n", "HASH is not 8 hex digits"},
      {"00000000000000aa 0 0 ffn 0000000x\n", "HASH is not 8 hex digits"},
      {"00000000000000aa 0 0 ffn 00000001\r\n", "HASH is not 8 hex digits"},
      {std::string(300, 'x') + "\n", "is too long"},
      {std::string(3 << 20, 'x'), "is too long"},
  };
  for (const auto& [bad, why] : cases) {
    const Outcome outcome = Diff(good, good + bad + good);
    EXPECT_EQ(outcome.code, 2) << bad.substr(0, 80);
    EXPECT_THAT(outcome.err, HasSubstr("/b line 2: " + why));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(DiffTest, TooManyStagesAreRefused) {
  std::string trace;
  for (int i = 0; i < 100; ++i) {
    trace += fmt::format("00000000000000aa 0 0 stage{} 00000001\n", i);
  }
  const Outcome outcome = Diff(trace, trace);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("STAGE is no stage"));
}

TEST_F(DiffTest, UnreadableFilesAndUsage) {
  const std::string trace = Write("trace", "00000000000000aa 0 -1 embed 00000001\n");
  const Outcome missing = Run({"diff", trace, folder_ / "none"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("/none: No such file"));
  const Outcome folder = Run({"diff", folder_, trace});
  EXPECT_EQ(folder.code, 2);
  EXPECT_THAT(folder.err, HasSubstr("directory"));
  EXPECT_EQ(Run({"diff", trace}).code, 2);
  EXPECT_EQ(Run({"diff", "--help"}).code, 0);
}

// Lines across the ends of the reader's chunks, against a count known from how it was made.
TEST_F(DiffTest, LongTrace) {
  std::vector<std::string> lines = MadeTrace(4, 700, 12);
  const std::string trace = Join(lines);
  ASSERT_GT(trace.size(), size_t{2} << 20);
  Change(lines, "fedc000000000003 650 11 ffn");
  const Outcome outcome = Diff(trace, Join(lines));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("sequence fedc000000000003 position 650 layer 11 stage ffn"));
  EXPECT_THAT(outcome.out, HasSubstr("in both: 70000 entries of 4 sequences; 1 entries of 1"));
}

}  // namespace
}  // namespace bottega
