#include "observability/flight_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

namespace bottega {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<uint64_t> As(const std::vector<FlightEvent>& events) {
  std::vector<uint64_t> as;
  for (const FlightEvent& event : events) as.push_back(event.note.a);
  return as;
}

TEST(FlightRecorder, KeepsTheNewestOfEachRing) {
  FlightRecorder recorder(4, 8);
  for (uint64_t i = 0; i < 6; ++i) recorder.Record({.kind = FlightKind::kTable, .a = i});
  for (uint64_t i = 100; i < 120; ++i) recorder.Record({.kind = FlightKind::kStep, .a = i});
  // What is rare is not pushed out by what is frequent.
  EXPECT_THAT(As(recorder.Read({})),
              ElementsAre(2, 3, 4, 5, 112, 113, 114, 115, 116, 117, 118, 119));
  EXPECT_THAT(As(recorder.Read({.last = 3})), ElementsAre(117, 118, 119));
}

TEST(FlightRecorder, AnEventComesBackAsItWasNoted) {
  FlightRecorder recorder;
  const FlightNote note{.kind = FlightKind::kReply,
                        .key = 0xfedcba9876543210,
                        .peer = 0xffffffff,
                        .layer = 0xffff,
                        .a = UINT64_MAX,
                        .b = 1};
  recorder.Record(note);
  ASSERT_THAT(recorder.Read({}), SizeIs(1));
  const FlightNote read = recorder.Read({}).front().note;
  EXPECT_EQ(read.kind, note.kind);
  EXPECT_EQ(read.key, note.key);
  EXPECT_EQ(read.peer, note.peer);
  EXPECT_EQ(read.layer, note.layer);
  EXPECT_EQ(read.a, note.a);
  EXPECT_EQ(read.b, note.b);
}

TEST(FlightRecorder, ARequestComesWithTheStepsItWasInAndNoOthers) {
  FlightRecorder recorder;
  const uint64_t mine = TraceKey("mine"), other = TraceKey("other");
  recorder.Record({.kind = FlightKind::kTaken, .key = mine, .a = 1});
  recorder.Record({.kind = FlightKind::kTaken, .key = other, .a = 2});
  recorder.Record({.kind = FlightKind::kInStep, .key = mine, .a = 7});
  recorder.Record({.kind = FlightKind::kInStep, .key = other, .a = 8});
  recorder.Record({.kind = FlightKind::kResent, .key = 7, .a = 3});
  recorder.Record({.kind = FlightKind::kResent, .key = 8, .a = 4});
  recorder.Record({.kind = FlightKind::kStep, .key = 7, .a = 5});
  recorder.Record({.kind = FlightKind::kStep, .key = 8, .a = 6});
  recorder.Record({.kind = FlightKind::kTable, .a = 9});
  EXPECT_THAT(As(recorder.Read({.request = mine})), ElementsAre(1, 7, 3, 5));
  EXPECT_THAT(recorder.Read({.request = TraceKey("nobody")}), IsEmpty());
}

TEST(FlightRecorder, AnIdIsTheSameWithAndWithoutItsPrefix) {
  EXPECT_EQ(TraceKey("chatcmpl-abc"), TraceKey("abc"));
  EXPECT_EQ(TraceKey("cmpl-abc"), TraceKey("abc"));
  EXPECT_NE(TraceKey("abd"), TraceKey("abc"));
}

TEST(FlightRecorder, AQueryIsReadAndNonsenseIgnored) {
  const FlightQuery query = ParseFlightQuery("request=00ff&last=12");
  EXPECT_EQ(query.request, 255u);
  EXPECT_EQ(query.last, 12u);
  for (const char* text :
       {"", "request=", "request=xyz&last=-1", "last=99999999999999999999", "&&="}) {
    EXPECT_EQ(ParseFlightQuery(text).request, std::nullopt) << text;
    EXPECT_EQ(ParseFlightQuery(text).last, FlightQuery{}.last) << text;
  }
}

// Four writers go round a small ring while it is read: every event that is read is whole.
TEST(FlightRecorder, WritersAndReadersNeedNoLock) {
  FlightRecorder recorder(64, 64);
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (uint64_t writer = 1; writer <= 4; ++writer) {
    writers.emplace_back([&, writer] {
      for (uint64_t i = 0; !stop; ++i) {
        recorder.Record({.kind = FlightKind::kSent, .key = writer, .a = i, .b = i * writer});
      }
    });
  }
  size_t read = 0;
  while (read < 20'000) {
    for (const FlightEvent& event : recorder.Read({})) {
      EXPECT_EQ(event.note.b, event.note.a * event.note.key);
      ++read;
    }
  }
  stop = true;
  for (std::thread& thread : writers) thread.join();
}

TEST(FlightRecorder, DumpIsALineAnEvent) {
  FlightRecorder recorder;
  recorder.Record({.kind = FlightKind::kTable, .a = 5, .b = 77});
  recorder.Record({.kind = FlightKind::kSent, .key = 0xab, .peer = 3, .layer = 2, .a = 1, .b = 8});
  std::FILE* file = std::tmpfile();
  recorder.Dump(fileno(file), 10);
  std::string text(4096, '\0');
  text.resize(static_cast<size_t>(pread(fileno(file), text.data(), text.size(), 0)));
  std::fclose(file);
  EXPECT_THAT(text, HasSubstr(" table key=0 peer=0 layer=0 epoch=5 term=77\n"));
  EXPECT_THAT(text, HasSubstr(" sent key=ab peer=3 layer=2 sequence=1 rows=8\n"));
}

TEST(FlightRecorder, JsonNamesItsFields) {
  FlightRecorder recorder;
  recorder.Record({.kind = FlightKind::kResent, .key = 1, .peer = 2, .layer = 3, .a = 4, .b = 5});
  EXPECT_THAT(
      recorder.Json("a\"b", {}),
      HasSubstr(
          R"("event":"resent","key":"0000000000000001","peer":2,"layer":3,"why":4,"rows":5})"));
  EXPECT_THAT(recorder.Json("a\"b", {}), HasSubstr(R"({"process":"a_b","events":[)"));
}

}  // namespace
}  // namespace bottega
