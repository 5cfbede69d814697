#include "cli/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "observability/flight_recorder.h"

namespace bottega {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

const std::map<uint32_t, std::string> kNames = {
    {1, "attention-0"}, {2, "attention-1"}, {7, "expert-3"}};

std::vector<TraceEvent> Parsed(const FlightRecorder& recorder, const char* process) {
  absl::StatusOr<std::vector<TraceEvent>> events = ParseFlight(recorder.Json(process, {}));
  EXPECT_TRUE(events.ok()) << events.status();
  return *std::move(events);
}

TEST(Trace, TellsOneRequestsWayInOrder) {
  const uint64_t key = TraceKey("abc");
  FlightRecorder gateway(64, 64), worker(64, 64);
  gateway.Record({.kind = FlightKind::kArrived, .key = key});
  gateway.Record({.kind = FlightKind::kPrepared, .key = key, .a = 12, .b = 1});
  gateway.Record({.kind = FlightKind::kPlaced, .key = key, .peer = 1});
  worker.Record({.kind = FlightKind::kTaken, .key = key, .a = 12});
  worker.Record({.kind = FlightKind::kStarted, .key = key, .a = 80, .b = 1500});
  worker.Record({.kind = FlightKind::kInStep, .key = key, .a = 80, .b = 12});
  worker.Record({.kind = FlightKind::kReply, .key = 80, .peer = 7, .layer = 1, .a = 96, .b = 400});
  worker.Record({.kind = FlightKind::kResent, .key = 80, .peer = 7, .layer = 2, .a = 0, .b = 96});
  worker.Record({.kind = FlightKind::kStep, .key = 80, .a = 30, .b = 5000});
  gateway.Record({.kind = FlightKind::kLost, .key = key, .a = 0, .b = 31});
  gateway.Record({.kind = FlightKind::kPlaced, .key = key, .peer = 2, .b = 1});
  gateway.Record({.kind = FlightKind::kFinished, .key = key, .a = 200, .b = 60});
  std::vector<TraceEvent> events = Parsed(worker, "attention-0");
  for (TraceEvent& event : Parsed(gateway, "gateway-0")) events.push_back(std::move(event));
  // What really happened lies within a few microseconds of one process.
  const std::vector<std::string> order = {
      "arrived", "prepared", "placed", "taken", "started",  "in_step",
      "reply",   "resent",   "step",   "lost",  "finished",
  };
  for (TraceEvent& event : events) {
    const auto at = std::ranges::find(order, event.event) - order.begin();
    event.unix_us = 1000 * (event.event == "placed" && event.Get("owner_epoch") > 0 ? 9 : at);
  }
  const std::string text = TraceText(events, kNames);
  size_t at = 0;
  for (const char* line :
       {"the request arrived", "12 prompt tokens, 1 choice",
        "choice 0 has a place at attention-0\n", "taken: 12 prompt tokens\n",
        "first step, number 80, after 1.5 ms in the queue",
        "step 80 layer 2: 96 rows RESENT, away from expert-3: its endpoint was lost",
        "choice 0 LOST its worker at token 31: failover",
        "a place at attention-1 (its owner number 2)", "answered: status 200, 60 tokens",
        "attention-0            1      12         30.0      5.00",
        "attention-0      expert-3               1        96      0.40"}) {
    const size_t found = text.find(line, at);
    ASSERT_NE(found, std::string::npos) << line << " is missing or too early in\n" << text;
    at = found;
  }
}

TEST(Trace, NothingIsSaidOfWhatNobodyRemembers) { EXPECT_THAT(TraceText({}, kNames), IsEmpty()); }

TEST(Trace, AMemberThatIsGoneHasANumber) {
  FlightRecorder gateway(64, 64);
  gateway.Record({.kind = FlightKind::kPlaced, .peer = 42});
  EXPECT_THAT(TraceText(Parsed(gateway, "g"), kNames), HasSubstr("a place at member 42"));
}

TEST(Trace, AnAnswerThatIsNoRecordIsRefused) {
  for (const char* json :
       {"", "[]", "{}", R"({"process":1,"events":[]})", R"({"process":"p","events":[1]})",
        R"({"process":"p","events":[{"us":"x"}]})", R"({"process":"p","events":[{"a":{}}]})"}) {
    EXPECT_FALSE(ParseFlight(json).ok()) << json;
  }
  EXPECT_THAT(*ParseFlight(R"({"process":"p","events":[]})"), IsEmpty());
}

}  // namespace
}  // namespace bottega
