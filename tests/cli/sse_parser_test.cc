#include "cli/sse_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/limits.h"

namespace bottega {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Events = std::vector<std::string>;

// Parses `pieces`, one call each.
Events Parse(const std::vector<std::string>& pieces) {
  Events events;
  SseParser parser([&events](std::string_view data) {
    events.emplace_back(data);
    return true;
  });
  for (const std::string& piece : pieces) EXPECT_TRUE(parser.Feed(piece));
  return events;
}

const struct {
  std::string stream;
  Events events;
} kStreams[] = {
    {"data: {\"a\":1}\n\ndata: [DONE]\n\n", {"{\"a\":1}", "[DONE]"}},
    {"data: x\r\n\r\ndata: y\r\n\r\n", {"x", "y"}},
    {"data: x\r\rdata: y\r\r", {"x", "y"}},
    {"data: one\ndata: two\n\n", {"one\ntwo"}},
    {": keep-alive\n\ndata: x\n\n: keep-alive\n\n", {"x"}},
    {"event: delta\nid: 7\nretry: 10\ndata:x\ndatum: y\n\n", {"x"}},
    {"\xef\xbb\xbf"
     "data: \xc3\xa8\n\n",
     {"\xc3\xa8"}},
    {"data:  two blanks\n\n", {" two blanks"}},
    {"data\ndata\n\n", {"\n"}},
    {"data: x\n\ndata: not ended\n", {"x"}},
    {"\n\n\n", {}},
};

TEST(SseParserTest, EveryCutOfTheStream) {
  for (const auto& [stream, events] : kStreams) {
    EXPECT_EQ(Parse({stream}), events) << stream;
    for (size_t first = 0; first <= stream.size(); ++first) {
      for (size_t second = first; second <= stream.size(); ++second) {
        EXPECT_EQ(Parse({stream.substr(0, first), stream.substr(first, second - first),
                         stream.substr(second)}),
                  events)
            << stream << " cut at " << first << " and " << second;
      }
    }
    std::vector<std::string> bytes;
    for (char byte : stream) bytes.emplace_back(1, byte);
    EXPECT_EQ(Parse(bytes), events) << stream;
  }
}

TEST(SseParserTest, EndsWhenNoMoreIsWanted) {
  Events events;
  SseParser parser([&events](std::string_view data) {
    events.emplace_back(data);
    return data != "[DONE]";
  });
  EXPECT_TRUE(parser.Feed("data: a\n\n"));
  EXPECT_FALSE(parser.Feed("data: [DONE]\n\ndata: b\n\n"));
  EXPECT_FALSE(parser.Feed("data: c\n\n"));
  EXPECT_THAT(events, ElementsAre("a", "[DONE]"));
  EXPECT_FALSE(parser.too_long());
}

TEST(SseParserTest, EventsHaveABound) {
  Events events;
  const auto keep = [&events](std::string_view data) {
    events.emplace_back(data.substr(0, 1));
    return true;
  };
  const std::string data(limits::kClientEventBytesMax - 100, 'x');
  SseParser one_line(keep);
  EXPECT_TRUE(one_line.Feed("data: " + data + "\n\n"));
  EXPECT_THAT(events, ElementsAre("x"));
  EXPECT_TRUE(one_line.Feed("data: " + data));
  EXPECT_FALSE(one_line.Feed(std::string(200, 'y') + "\n\n"));
  EXPECT_TRUE(one_line.too_long());
  EXPECT_FALSE(one_line.Feed("data: z\n\n"));
  EXPECT_THAT(events, ElementsAre("x"));

  events.clear();
  SseParser many_lines(keep);
  bool open = true;
  for (int i = 0; i < 2000 && open; ++i)
    open = many_lines.Feed("data: " + std::string(1024, 'x') + "\n");
  EXPECT_FALSE(open);
  EXPECT_TRUE(many_lines.too_long());
  EXPECT_THAT(events, IsEmpty());
}

}  // namespace
}  // namespace bottega
