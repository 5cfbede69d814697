#include "core/base/crc32c.h"

#include <random>
#include <string>

#include "gtest/gtest.h"

namespace bottega {
namespace {

// RFC 3720 appendix B.4.
TEST(Crc32c, PublishedVectors) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(static_cast<char>(i));
  EXPECT_EQ(Crc32c(ascending), 0x46DD794Eu);
}

// One bit at a time, from the definition.
uint32_t Slow(const std::string& data) {
  uint32_t crc = 0xFFFFFFFFu;
  for (unsigned char byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
  }
  return ~crc;
}

TEST(Crc32c, BothPathsEqualTheDefinitionAtEveryLengthAndAlignment) {
  std::mt19937 random(1);
  std::string data(7000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  for (size_t bytes :
       {0, 1, 7, 8, 9, 63, 64, 1023, 1024, 3071, 3072, 3073, 6143, 6144, 6200, 6990}) {
    for (size_t start : {0, 1, 5}) {
      std::string part = data.substr(start, bytes);
      uint32_t expected = Slow(part);
      EXPECT_EQ(Crc32c(data.data() + start, bytes), expected) << bytes << " at " << start;
      EXPECT_EQ(ExtendCrc32cPortable(0, data.data() + start, bytes), expected) << bytes;
    }
  }
}

TEST(Crc32c, ExtendsOverAnyCut) {
  std::mt19937 random(2);
  std::string data(5000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  uint32_t whole = Crc32c(data);
  for (size_t cut : {0, 1, 3, 8, 100, 3072, 4999, 5000}) {
    uint32_t head = Crc32c(data.data(), cut);
    EXPECT_EQ(ExtendCrc32c(head, data.data() + cut, data.size() - cut), whole) << cut;
  }
}

TEST(Crc32c, CombinesTheSumsOfPieces) {
  std::vector<unsigned char> data(70'000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(i * i >> 3);
  const uint32_t whole = Crc32c(data.data(), data.size());
  for (size_t cut : {0u, 1u, 7u, 4096u, 65'536u, 69'999u, 70'000u}) {
    const size_t rest = data.size() - cut;
    EXPECT_EQ(CombineCrc32c(Crc32c(data.data(), cut), Crc32c(data.data() + cut, rest), rest), whole)
        << cut;
  }
}

TEST(Crc32c, SeesEverySingleBit) {
  std::string data(64, 'x');
  uint32_t before = Crc32c(data);
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    EXPECT_NE(Crc32c(data), before);
    data[bit / 8] ^= static_cast<char>(1 << (bit % 8));
  }
}

}  // namespace
}  // namespace bottega
