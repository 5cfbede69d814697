#include "core/model/safetensors_header.h"

#include <chrono>
#include <string>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"

namespace bottega {
namespace {

using testing::HasSubstr;

absl::StatusOr<std::vector<StoredTensor>> Parse(const std::string& file) {
  return ParseSafetensorsHeader(std::as_bytes(std::span(file)), file.size());
}

std::string Good() {
  return SafetensorsFile({{"a", "F32", {2, 3}, std::string(24, 'a')},
                          {"empty", "BF16", {0, 5}, ""},
                          {"b", "BF16", {4}, std::string(8, 'b')}});
}

TEST(SafetensorsHeader, ReadsInFileOrder) {
  std::string file = Good();
  auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].type, StoredType::kF32);
  EXPECT_EQ((*tensors)[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.substr((*tensors)[0].offset, (*tensors)[0].bytes), std::string(24, 'a'));
  EXPECT_EQ((*tensors)[1].bytes, 0u);
  EXPECT_EQ(file.substr((*tensors)[2].offset, (*tensors)[2].bytes), std::string(8, 'b'));
}

TEST(SafetensorsHeader, AScalarAndAnEmptyFileAreLegal) {
  EXPECT_TRUE(Parse(SafetensorsFile({{"s", "F32", {}, std::string(4, 'x')}})).ok());
  EXPECT_TRUE(Parse(SafetensorsFile("{}", "")).ok());
}

// M1: cut anywhere, the file is refused; only whole it is good.
TEST(SafetensorsHeader, RefusesEveryCut) {
  std::string file = Good();
  for (size_t bytes = 0; bytes < file.size(); ++bytes) {
    EXPECT_FALSE(Parse(file.substr(0, bytes)).ok()) << bytes;
  }
  EXPECT_TRUE(Parse(file).ok());
  EXPECT_FALSE(Parse(file + "x").ok());
}

TEST(SafetensorsHeader, RefusesLengthsWithoutAllocating) {
  for (uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{1000}, uint64_t{16} << 20, (uint64_t{16} << 20) + 1,
        uint64_t{1} << 40, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7}) {
    std::string file = Good();
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
    auto tensors = Parse(file);
    ASSERT_FALSE(tensors.ok()) << length;
    EXPECT_EQ(ReasonOf(tensors.status()), Reason::kModelRefused);
  }
}

std::string Entry(const std::string& name, const std::string& body) {
  return "\"" + name + "\":{" + body + "}";
}

struct Case {
  std::string header;
  size_t data_bytes;
  std::string message;
};

TEST(SafetensorsHeader, RefusesByTable) {
  const std::string a = Entry("a", R"("dtype":"F32","shape":[2],"data_offsets":[0,8])");
  auto shaped = [](const std::string& shape, const std::string& range) {
    return "{" + Entry("a", "\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":" + range) +
           "}";
  };
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  const Case cases[] = {
      {"{" + a + "," + Entry("b", R"("dtype":"F32","shape":[2],"data_offsets":[4,12])") + "}", 12,
       "overlap"},
      {"{" + a + "," + Entry("b", R"("dtype":"F32","shape":[2],"data_offsets":[0,8])") + "}", 8,
       "overlap"},
      {"{" + a + "," + Entry("b", R"("dtype":"F32","shape":[2],"data_offsets":[12,20])") + "}", 20,
       "hole"},
      {shaped("[2]", "[4,12]"), 12, "hole"},
      {"{" + a + "}", 9, "bytes of data"},
      {"{" + a + "}", 7, "bytes of data"},
      {"{" + a + "," + a + "}", 8, "twice"},
      {"{" + Entry("a", R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])") + "}", 8,
       "twice"},
      {shaped("[3]", "[0,8]"), 8, "need"},
      {shaped("[2]", "[8,0]"), 8, "backwards"},
      {shaped("[4294967296,4294967296,4]", "[0,0]"), 0, "overflows"},
      {shaped("[9223372036854775807,2]", "[0,0]"), 0, "overflows"},
      {shaped("[18446744073709551615]", "[0,8]"), 8, "overflows"},
      {shaped("[18446744073709551616]", "[0,8]"), 8, "fraction"},
      {shaped("[-2]", "[0,8]"), 8, "negative"},
      {shaped("[2.0]", "[0,8]"), 8, "fraction"},
      {shaped("[\"2\"]", "[0,8]"), 8, "string"},
      {shaped("[[2]]", "[0,8]"), 8, "array"},
      {shaped("[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "rank"},
      {shaped("[2]", "[0]"), 8, "pair"},
      {shaped("[2]", "[0,8,8]"), 8, "pair"},
      {shaped("[2]", "[0,18446744073709551615]"), 8, "need"},
      {shaped("[2]", "[18446744073709551608,18446744073709551615]"), 8, "need"},
      {shaped("2", "[0,8]"), 8, "number"},
      {shaped("{}", "[0,8]"), 8, "object"},
      {"{" + Entry("a", R"("dtype":"F31","shape":[2],"data_offsets":[0,8])") + "}", 8, "dtype"},
      {"{" + Entry("a", R"("dtype":32,"shape":[2],"data_offsets":[0,8])") + "}", 8, "number"},
      {"{" + Entry("a", R"("dtype":"F32","shape":[2])") + "}", 8, "lacks"},
      {"{" + Entry("a", R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)") + "}", 8,
       "unknown key"},
      {R"({"a":1})", 0, "number"},
      {R"({"a":null})", 0, "null"},
      {R"({"a":[1]})", 0, "array"},
      {R"({"__metadata__":{"a":1}})", 0, "number"},
      {R"({"__metadata__":{"a":{}}})", 0, "object"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {"[]", 0, "begin with {"},
      {" {}", 0, "begin with {"},
      {"{}x", 0, "JSON"},
      {"{", 0, "JSON"},
      {"{\"\xff\":1}", 0, "JSON"},
      {deep, 0, "unknown key"},
  };
  for (const Case& c : cases) {
    auto tensors = Parse(SafetensorsFile(c.header, std::string(c.data_bytes, 'x')));
    ASSERT_FALSE(tensors.ok()) << c.header.substr(0, 200);
    EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(c.message))
        << c.header.substr(0, 200);
  }
}

// M3: a million tensors; the count is refused as soon as it is passed.
TEST(SafetensorsHeader, RefusesAMillionTensors) {
  std::string header = "{";
  for (int i = 0; header.size() < limits::kSafetensorsHeaderBytesMax - 100; ++i) {
    header += (i ? ",\"" : "\"") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  header += "}";
  auto tensors = Parse(SafetensorsFile(header, ""));
  ASSERT_FALSE(tensors.ok());
  EXPECT_THAT(std::string(tensors.status().message()), HasSubstr("200000 tensors"));
}

}  // namespace
}  // namespace bottega
