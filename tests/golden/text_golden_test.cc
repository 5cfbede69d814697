// Tokens and rendered prompts against what Hugging Face's tokenizers and Jinja2, set up as in
// transformers, gave for them (tools/reference).
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/reason.h"
#include "core/text/chat_template.h"
#include "core/text/detokenizer.h"
#include "core/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<fs::path> GoldenFiles(const fs::path& folder, const std::string& key) {
  std::set<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    if (ordered_json::parse(ReadFile(entry.path())).contains(key)) found.insert(entry.path());
  }
  return {found.begin(), found.end()};
}

class TokenizerGolden : public testing::TestWithParam<fs::path> {};

TEST_P(TokenizerGolden, IdsAndTextEqualHuggingFace) {
  ordered_json golden = ordered_json::parse(ReadFile(GetParam()));
  auto tokenizer = Tokenizer::Load(ReadFile(golden["tokenizer"].get<std::string>()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_GE(golden["cases"].size(), 300u);
  for (const ordered_json& c : golden["cases"]) {
    std::string text = c["text"];
    std::vector<int32_t> expected = c["ids"];
    auto ids = tokenizer->Encode(text, {.add_special_tokens = false, .parse_special_tokens = true});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected) << text;
    auto with_special = tokenizer->Encode(text, {.add_special_tokens = true});
    ASSERT_TRUE(with_special.ok());
    EXPECT_EQ(*with_special, c["ids_with_special"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer->Decode(expected, false).value(), c["decoded"]) << text;
    EXPECT_EQ(tokenizer->Decode(expected, true).value(), c["decoded_skip_special"]) << text;
    for (bool skip : {false, true}) {
      StreamDecoder decoder(*tokenizer, skip);
      std::string streamed;
      for (int32_t id : expected) streamed += decoder.Push(id);
      streamed += decoder.Flush();
      EXPECT_EQ(streamed, c[skip ? "decoded_skip_special" : "decoded"]) << text;
    }
  }
}

TEST_P(TokenizerGolden, PlainTextHasNoAddedToken) {
  ordered_json golden = ordered_json::parse(ReadFile(GetParam()));
  auto tokenizer = Tokenizer::Load(ReadFile(golden["tokenizer"].get<std::string>()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::set<int32_t> added;
  for (const AddedToken& token : tokenizer->added_tokens()) added.insert(token.id);
  size_t parsed = 0;
  for (const ordered_json& c : golden["cases"]) {
    std::string text = c["text"];
    auto ids = tokenizer->Encode(text, {.parse_special_tokens = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    for (int32_t id : *ids) EXPECT_FALSE(added.contains(id)) << id << " in " << text;
    for (int32_t id : c["ids"]) parsed += added.contains(id);
  }
  EXPECT_GT(parsed, 20u) << "the golden strings hold no special text any more";
}

class TemplateGolden : public testing::TestWithParam<fs::path> {};

TEST_P(TemplateGolden, TextEqualsJinja2) {
  ordered_json golden = ordered_json::parse(ReadFile(GetParam()));
  auto chat_template = ChatTemplate::Compile(ReadFile(golden["template"].get<std::string>()));
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  ASSERT_GE(golden["cases"].size(), 40u);
  for (const ordered_json& c : golden["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    std::string context = c["context"].dump();
    bool open = c.value("continue_final_message", false);
    auto text = open ? chat_template->RenderContinued(context) : chat_template->Render(context);
    if (c.contains("rendered")) {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, c["rendered"].get<std::string>());
    } else {
      ASSERT_FALSE(text.ok()) << *text;
      EXPECT_EQ(ReasonOf(text.status()), Reason::kInvalidValue);
      EXPECT_EQ(text.status().message(), c["error"].get<std::string>());
    }
  }
}

std::string NameOf(const testing::TestParamInfo<fs::path>& info) {
  std::string name = info.param.stem().string();
  for (char& c : name) c = isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerGolden,
                         testing::ValuesIn(GoldenFiles("tests/golden/tokenizer", "tokenizer")),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Files, TemplateGolden,
                         testing::ValuesIn(GoldenFiles("tests/golden/chat_template", "template")),
                         NameOf);

}  // namespace
}  // namespace bottega
