#include "gateway/stop_strings.h"

#include <gtest/gtest.h>

namespace bottega::gateway {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> stops;
  const char* text;
  const char* shown;
  const char* stopped_by;  // null: none
};

const Case kCases[] = {
    {"none", {"END"}, "all of EN it", "all of EN it", nullptr},
    {"found", {"END"}, "before END after", "before ", "END"},
    {"at_once", {"a"}, "abc", "", "a"},
    {"first_complete_wins", {"world and", "wor"}, "hello world and", "hello ", "wor"},
    {"longer_of_two_that_end_together", {"cd", "abcd"}, "xabcdy", "x", "abcd"},
    {"overlapping_starts", {"aab"}, "aaaab", "aa", "aab"},
    {"end_of_text_is_held_then_shown", {"\n\nUser:"}, "text\n\nUse", "text\n\nUse", nullptr},
    {"accents", {"perché no"}, "e perché non", "e ", "perché no"},
};

class StopStringsTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, StopStringsTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST_P(StopStringsTest, TheCutOfTheTextDoesNotMatter) {
  const Case& c = GetParam();
  const std::string text = c.text;
  for (bool include : {false, true}) {
    for (size_t step = 1; step <= text.size(); ++step) {
      StopStrings stops(c.stops, include);
      std::string shown, by;
      for (size_t at = 0; at < text.size() && by.empty(); at += step) {
        StopStrings::Found found = stops.Push(text.substr(at, step));
        shown += found.text;
        if (found.stop) by = stops.text_of(*found.stop);
      }
      if (by.empty()) shown += stops.Finish();
      EXPECT_EQ(by, c.stopped_by == nullptr ? "" : c.stopped_by) << "step " << step;
      EXPECT_EQ(shown, c.shown + (include ? by : "")) << "step " << step;
    }
  }
}

TEST(StopStrings, HoldsBackOnlyWhatMayBeginAStop) {
  StopStrings stops({"STOP"}, false);
  EXPECT_EQ(stops.Push("a S").text, "a ");
  EXPECT_EQ(stops.Push("a").text, "Sa");
}

TEST(StopStrings, PassLooksForNothing) {
  StopStrings stops({"STOP"}, false);
  EXPECT_EQ(stops.Pass("a STOP b"), "a STOP b");
}

}  // namespace
}  // namespace bottega::gateway
