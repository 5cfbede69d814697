// docs/wire_formats.md is what other people program against: its tables are read and compared.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/exchange/exchange_layout.h"

namespace bottega {
namespace {

// The cells of the rows of the first table after `heading`, header and rule left out.
std::vector<std::vector<std::string>> TableAfter(const std::string& heading) {
  std::ifstream file("docs/wire_formats.md");
  std::string line;
  while (std::getline(file, line) && !line.starts_with(heading)) {
  }
  std::vector<std::vector<std::string>> rows;
  while (std::getline(file, line)) {
    if (!line.starts_with("|")) {
      if (rows.empty()) continue;
      break;
    }
    std::vector<std::string> cells;
    std::stringstream cut(line.substr(1));
    for (std::string cell; std::getline(cut, cell, '|');) {
      const size_t begin = cell.find_first_not_of(" `");
      const size_t end = cell.find_last_not_of(" `");
      cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, end - begin + 1));
    }
    rows.push_back(std::move(cells));
  }
  if (rows.size() >= 2) rows.erase(rows.begin(), rows.begin() + 2);
  return rows;
}

TEST(WireFormats, TheHeaderIsAsTheDocumentSays) {
  struct Field {
    const char* name;
    size_t offset, bytes;
  };
#define FIELD(name) \
  { #name, offsetof(FrameHeader, name), sizeof(FrameHeader::name) }
  const Field fields[] = {
      FIELD(magic),       FIELD(version), FIELD(kind),     FIELD(row_type),     FIELD(crc),
      FIELD(frame_bytes), FIELD(sender),  FIELD(receiver), FIELD(session_key),  FIELD(request_key),
      FIELD(sequence),    FIELD(epoch),   FIELD(layer),    FIELD(micro_batch),  FIELD(part),
      FIELD(parts),       FIELD(attempt), FIELD(reason),   FIELD(phase),        FIELD(zero),
      FIELD(tokens),      FIELD(entries), FIELD(hidden),   FIELD(remaining_us), FIELD(credits),
      FIELD(reserved),
  };
#undef FIELD
  const auto rows = TableAfter("### Header");
  ASSERT_EQ(rows.size(), std::size(fields));
  size_t end = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(fields[i].name);
    EXPECT_EQ(rows[i][0], std::to_string(fields[i].offset));
    EXPECT_EQ(rows[i][1], std::to_string(fields[i].bytes));
    EXPECT_EQ(rows[i][2], fields[i].name);
    EXPECT_EQ(fields[i].offset, end) << "a byte that the document does not name";
    end += fields[i].bytes;
  }
  EXPECT_EQ(end, sizeof(FrameHeader));
}

TEST(WireFormats, Reasons) {
  const auto rows = TableAfter("### Reasons");
  ASSERT_EQ(rows.size(), static_cast<size_t>(FrameReason::kTrial) + 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i][0], std::to_string(i));
    EXPECT_EQ(rows[i][1], Name(static_cast<FrameReason>(i)));
  }
}

TEST(WireFormats, TheExample) {
  EXPECT_EQ(ForwardRowsOffset(2, 3), 192u);
  EXPECT_EQ(ForwardBytes(2, 3, 256), 704u);
  EXPECT_EQ(ReplyBytes(3, 256), 896u);
  EXPECT_EQ(kFrameMagic, 0x58475442u);
  EXPECT_EQ(kFrameVersion, 1);
}

}  // namespace
}  // namespace bottega
