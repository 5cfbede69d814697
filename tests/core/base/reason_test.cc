#include "core/base/reason.h"

#include <gtest/gtest.h>

#include <set>

namespace bottega {
namespace {

TEST(Reason, EveryRowSurvivesAStatus) {
  std::set<std::string_view> names;
  for (const ReasonRow& row : ReasonTable()) {
    EXPECT_EQ(&RowOf(row.reason), &row);
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    const absl::Status status = MakeError(row.reason, "why", "field");
    EXPECT_EQ(ReasonOf(status), row.reason) << row.name;
    EXPECT_EQ(ParamOf(status), "field");
    EXPECT_EQ(status.code(), row.code);
  }
}

TEST(Reason, AStatusOfAnotherLibraryGetsTheClosestReason) {
  EXPECT_EQ(ReasonOf(absl::InvalidArgumentError("x")), Reason::kInvalidValue);
  EXPECT_EQ(ReasonOf(absl::UnavailableError("x")), Reason::kNoWorker);
  EXPECT_EQ(ReasonOf(absl::DataLossError("x")), Reason::kInternalError);
}

}  // namespace
}  // namespace bottega
