#include "cli/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/limits_report.h"

namespace bottega {
namespace {

using testing::HasSubstr;
using testing::Not;

internal::v1::StatusReply Example() {
  internal::v1::StatusReply reply;
  reply.set_router_name("router");
  auto* table = reply.mutable_table();
  table->set_term(7);
  table->set_epoch(12);
  table->set_model_digest("abcdef");
  table->set_layers(3);
  table->set_experts(4);
  table->add_dense_layers(0);
  for (uint32_t id : {1, 2}) {
    auto* member = table->add_members();
    member->set_id(id);
    member->set_name("expert-" + std::to_string(id));
    member->set_role(internal::v1::ROLE_EXPERT);
    member->set_state(internal::v1::MEMBER_STATE_ACTIVE);
    auto* status = reply.add_members();
    status->set_id(id);
    status->set_held(5);
    status->set_assigned(6);
  }
  for (int key = 0; key < 12; ++key) {
    auto* ids = table->add_replicas()->mutable_member_ids();
    if (key >= 4 && key % 4 < 2) ids->Add(1);  // experts 0, 1 in both layers
    if (key >= 8) ids->Add(2);                 // all in layer 2
  }
  return reply;
}

TEST(Status, TextShowsMembersAndTheMap) {
  const std::string text = StatusText(Example());
  EXPECT_THAT(text, HasSubstr("term 7  epoch 12  model abcdef  2 layers of 4 experts"));
  EXPECT_THAT(text, HasSubstr("5/6"));
  EXPECT_THAT(text, HasSubstr("expert-1         ##..\n"));
  EXPECT_THAT(text, HasSubstr("expert-2         5555\n"));
  EXPECT_THAT(text, HasSubstr("NOBODY           ..55\n"));
}

TEST(Status, NobodyIsShownOnlyIfSomethingIsMissing) {
  internal::v1::StatusReply reply = Example();
  for (int key = 4; key < 8; ++key) {
    if (reply.table().replicas(key).member_ids().empty()) {
      reply.mutable_table()->mutable_replicas(key)->add_member_ids(2);
    }
  }
  EXPECT_THAT(StatusText(reply), Not(HasSubstr("NOBODY")));
}

TEST(Status, AnEmptyClusterIsNoError) {
  internal::v1::StatusReply reply;
  EXPECT_THAT(StatusText(reply), HasSubstr("no members yet"));
  EXPECT_EQ(nlohmann::json::parse(StatusJson(reply))["members"].size(), 0u);
}

TEST(Status, JsonIsWholeAndParses) {
  const auto json = nlohmann::json::parse(StatusJson(Example()));
  EXPECT_EQ(json["epoch"], 12);
  EXPECT_EQ(json["members"][1]["experts_held"], 5);
  EXPECT_EQ(json["replicas"][2][0], (std::vector<int>{1, 2}));
  EXPECT_EQ(json["replicas"][0][0], std::vector<int>());
  EXPECT_TRUE(json["rows"].empty());
}

TEST(Status, JsonHasTheRowsOfEachExpert) {
  internal::v1::StatusReply reply = Example();
  for (int key = 0; key < 12; ++key) reply.add_expert_rows(static_cast<float>(key));
  EXPECT_EQ(nlohmann::json::parse(StatusJson(reply))["rows"][2], (std::vector<int>{8, 9, 10, 11}));
  reply.add_expert_rows(1);  // more than there are experts
  EXPECT_TRUE(nlohmann::json::parse(StatusJson(reply))["rows"].empty());
}

// docs/operations.md shows the same table, so that an operator need not start anything to read it.
TEST(Status, TheDocumentShowsTheLimits) {
  std::string table = "| limit | default | past it |\n|---|---|---|\n";
  for (const LimitRow& row : LimitRows()) {
    table += "| " + row.name + " | " + row.value + " | " + row.past_it + " |\n";
  }
  std::ifstream file("docs/operations.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(table), std::string::npos) << "put this into docs/operations.md:\n"
                                                       << table;
}

}  // namespace
}  // namespace bottega
