#include "core/model/synthetic_text.h"

#include <map>

#include "core/base/reason.h"
#include "core/model/synthetic_shape.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"

namespace bottega {
namespace {

ModelConfig ConfigOf(const std::string& shape) {
  return *ParseModelConfig(*SyntheticShape(shape, 1), "");
}

std::map<std::string, std::string> FilesOf(const ModelConfig& config) {
  auto files = SyntheticText(config);
  EXPECT_TRUE(files.ok()) << files.status();
  std::map<std::string, std::string> by_name;
  for (const TextFile& file : *files) by_name[file.name] = file.content;
  return by_name;
}

Tokenizer TokenizerOf(const ModelConfig& config) {
  auto tokenizer = Tokenizer::Load(FilesOf(config)["tokenizer.json"]);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(SyntheticText, TheTokenizerHasTheVocabularyOfTheShape) {
  for (const std::string shape : {"enggpt2", "qwen3-30b-a3b"}) {
    const ModelConfig config = ConfigOf(shape);
    const Tokenizer tokenizer = TokenizerOf(config);
    EXPECT_EQ(tokenizer.vocab_size(), config.vocab_size);
    EXPECT_EQ(tokenizer.IdOf("<|im_end|>"), config.eos_ids[0]) << shape;
    EXPECT_EQ(tokenizer.IdOf("<|im_start|>"), config.eos_ids[0] - 1) << shape;
    for (const char* token : {"<think>", "</think>", "<tool_call>", "</tool_call>"}) {
      EXPECT_TRUE(tokenizer.IdOf(token).has_value()) << token;
    }
  }
  EXPECT_EQ(TokenizerOf(ConfigOf("enggpt2")).IdOf("<|pad|>"), 131083);
}

TEST(SyntheticText, TextGoesInAsBytesAndComesBack) {
  const Tokenizer tokenizer = TokenizerOf(ConfigOf("enggpt2"));
  const std::string text = "Perch\u00e9 no? \u65e5\u672c \U0001f600\n\t\u00ad";
  auto ids = tokenizer.Encode(text, {});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->size(), text.size());
  EXPECT_EQ(*tokenizer.Decode(*ids, true), text);
  EXPECT_EQ(*tokenizer.TokenBytes(259), " bababa");
  EXPECT_EQ(tokenizer.Encode("<|im_end|>", {})->size(), 1u);
}

TEST(SyntheticText, TheTemplateRendersAChat) {
  const auto compiled = ChatTemplate::Compile(FilesOf(ConfigOf("enggpt2"))["chat_template.jinja"]);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const nlohmann::json context = {
      {"messages",
       {{{"role", "user"}, {"content", "ciao"}},
        {{"role", "assistant"}, {"content", nullptr}},
        {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "hm"}}}}}}},
      {"add_generation_prompt", true},
      {"enable_thinking", false}};
  auto text = compiled->Render(context.dump());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text,
            "<|im_start|>user\nciao<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
            "<|im_start|>user\nhm<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
}

// The end token of the file is no place for twelve tokens: they come last, and that one ends too.
TEST(SyntheticText, SmallVocabularies) {
  nlohmann::json small = SmallConfig();
  small["vocab_size"] = 271;
  const ModelConfig config = *ParseModelConfig(small.dump(), "");
  EXPECT_EQ(TokenizerOf(config).IdOf("<|im_end|>"), 260);
  const auto with = ParseModelConfig(small.dump(), FilesOf(config)["generation_config.json"]);
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ(with->eos_ids, (std::vector<int32_t>{3, 260}));
  small["vocab_size"] = 270;
  const absl::Status status = SyntheticText(*ParseModelConfig(small.dump(), "")).status();
  EXPECT_EQ(ReasonOf(status), Reason::kModelRefused);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("at least 271"));
}

}  // namespace
}  // namespace bottega
