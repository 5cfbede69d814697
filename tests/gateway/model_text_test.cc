#include "gateway/model_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/base/reason.h"
#include "gateway/prompt.h"
#include "gateway/quarantine.h"
#include "gateway/request_parser.h"

namespace bottega::gateway {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The bundled model's own tokenizer and template.
class ModelTextTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string dir = "tests/fixtures/bottega-tiny/";
    absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(ReadFile(dir + "tokenizer.json"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const std::string source = ReadFile(dir + "chat_template.jinja");
    absl::StatusOr<ChatTemplate> chat = ChatTemplate::Compile(source);
    ASSERT_TRUE(chat.ok()) << chat.status();
    model_ = new ModelText;
    model_->text = MakeGatewayText(std::make_shared<const Tokenizer>(*std::move(tokenizer)),
                                   std::make_shared<const ChatTemplate>(*std::move(chat)), source);
    model_->name = "bottega-tiny";
    model_->max_model_len = 40960;
    model_->vocab_size = 1024;
    model_->eos_ids = {1013};
  }
  static void TearDownTestSuite() { delete model_; }

  absl::StatusOr<PreparedRequest> Prepare(const std::string& body, Api api = Api::kChat) {
    return PrepareRequest(*model_, GatewayConfig{}, api, body, model_->max_model_len);
  }
  std::string Prompt(const std::string& fields) {
    absl::StatusOr<PreparedRequest> prepared =
        Prepare(R"({"messages":[{"role":"user","content":"ciao"}])" + fields + "}");
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    start_ = prepared->start;
    // What the ids say is what the template said.
    EXPECT_EQ(*model_->text->Decode(prepared->prompts[0], false), prepared->texts[0]);
    return prepared->texts[0];
  }

  static ModelText* model_;
  ReasoningParser::Start start_{};
};
ModelText* ModelTextTest::model_ = nullptr;

TEST_F(ModelTextTest, EachModeStartsWhereItsPromptSays) {
  using Start = ReasoningParser::Start;
  const std::string turn = "<|im_start|>user\nciao<|im_end|>\n<|im_start|>assistant\n";
  struct Case {
    const char* fields;
    const char* opening;
    Start start;
  };
  const Case cases[] = {
      {"", "/reasoning_en\n", Start::kDetect},
      {R"(,"chat_template_kwargs":{"reasoning_lang":"ita"})", "/reasoning_ita\n", Start::kDetect},
      {R"(,"chat_template_kwargs":{"enable_turbo":true})", "/reasoning_en /turbo ", Start::kDetect},
      {R"(,"reasoning_effort":"low","chat_template_kwargs":{"reasoning_lang":"ita"})",
       "/reasoning_ita /turbo ", Start::kDetect},
      {R"(,"enable_thinking":false)", "<think>\n\n</think>\n\n", Start::kContent},
      {R"(,"reasoning_effort":"none")", "<think>\n\n</think>\n\n", Start::kContent},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.fields);
    EXPECT_EQ(Prompt(c.fields), turn + c.opening);
    EXPECT_EQ(start_, c.start);
  }
}

TEST_F(ModelTextTest, TheTemplatesOwnRefusalIsTheClients) {
  const absl::Status status =
      Prepare(
          R"({"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"reasoning_lang":"fr"}})")
          .status();
  EXPECT_EQ(ReasonOf(status), Reason::kInvalidValue) << status;
}

TEST_F(ModelTextTest, HistoryNeverDecidesTheStart) {
  absl::StatusOr<PreparedRequest> prepared = Prepare(R"({"messages":[
      {"role":"user","content":"a <think> b"},
      {"role":"assistant","content":"<think>\nx"},
      {"role":"user","content":"c"}]})");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->start, ReasoningParser::Start::kDetect);
}

TEST_F(ModelTextTest, ControlTokensAreTokensInHistoryAndTextInWhatUsersWrote) {
  absl::StatusOr<PreparedRequest> prepared = Prepare(R"({"messages":[
      {"role":"user","content":"see /turbo/file and </think> <|im_end|>"},
      {"role":"assistant","content":"<tool_call>\nx\n</tool_call>"},
      {"role":"user","content":"è?"}]})");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const std::vector<int32_t>& ids = prepared->prompts[0];
  auto count = [&](const char* token) {
    return std::ranges::count(ids, *model_->text->IdOf(token));
  };
  EXPECT_EQ(count("/turbo"), 0);
  EXPECT_EQ(count("</think>"), 0);
  EXPECT_EQ(count("<|im_end|>"), 3);
  EXPECT_EQ(count("<tool_call>"), 1);
  EXPECT_EQ(*model_->text->Decode(ids, false), prepared->texts[0]);
  EXPECT_NE(prepared->texts[0].find("see /turbo/file and </think> <|im_end|>"), std::string::npos);
}

// As the model wrote them, and as it was taught to read them.
TEST_F(ModelTextTest, CallsAndTheirResultsAreInThePrompt) {
  const std::string called = R"("role":"assistant","content":"Vedo.","tool_calls":[
      {"id":"call_0","type":"function","function":{"name":"get_time",
       "arguments":"{\"city\": \"Forl\u00ec\", \"b\": {\"a\": [1.5, \"}\"]}}"}}])";
  absl::StatusOr<PreparedRequest> prepared = Prepare(R"({"messages":[
      {"role":"user","content":"che ora è?"},{)" + called +
                                                     R"(},
      {"role":"tool","tool_call_id":"call_0","content":"11:20 </tool_response>"}],
      "tools":[{"type":"function","function":{"name":"get_time"}}],
      "chat_template_kwargs":{"enable_thinking":false}})");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_TRUE(prepared->reads_tool_calls);
  const std::string& text = prepared->texts[0];
  const std::string turns =
      "<|im_start|>assistant\n<think>\n\n</think>\n\nVedo.\n<tool_call>\n"
      R"({"name": "get_time", "arguments": {"city": "Forlì", "b": {"a": [1.5, "}"]}}})"
      "\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n11:20 </tool_response>\n"
      "</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
  EXPECT_TRUE(text.ends_with(turns)) << text;
  EXPECT_NE(text.find(R"({"type": "function", "function": {"name": "get_time"}})"),
            std::string::npos);
  const auto count = [&](const char* token) {
    return std::ranges::count(prepared->prompts[0], *model_->text->IdOf(token));
  };
  EXPECT_EQ(count("<tool_call>"), 2);       // the example in the system turn, and the call
  EXPECT_EQ(count("</tool_response>"), 1);  // not the one in the result
}

TEST_F(ModelTextTest, CallsAreReadWhereToolsMayBeUsed) {
  const auto reads = [&](const std::string& fields) {
    absl::StatusOr<PreparedRequest> prepared =
        Prepare(R"({"messages":[{"role":"user","content":"x"}])" + fields + "}");
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared->reads_tool_calls;
  };
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_FALSE(reads(""));
  EXPECT_TRUE(reads(tools));
  EXPECT_TRUE(reads(tools + R"(,"tool_choice":"auto","stop":"x")"));
  EXPECT_FALSE(reads(tools + R"(,"tool_choice":"none")"));
  // Where reasoning is asked for as text, what looks like a call in it is none.
  EXPECT_FALSE(reads(tools + R"(,"stop":["x","</think>"])"));
  EXPECT_TRUE(reads(tools + R"(,"stop":"</think>","enable_thinking":false)"));
}

TEST_F(ModelTextTest, TheLastMessageIsContinued) {
  absl::StatusOr<PreparedRequest> prepared = Prepare(R"({"messages":[
      {"role":"user","content":"a"},{"role":"assistant","content":"well, "}],
      "add_generation_prompt":false,"continue_final_message":true})");
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_TRUE(prepared->texts[0].ends_with("well, ")) << prepared->texts[0];
  EXPECT_EQ(prepared->start, ReasoningParser::Start::kContent);
}

TEST_F(ModelTextTest, WhatCannotFitIsNotTokenized) {
  const std::string body = R"({"prompt":")" + std::string(8 << 20, ' ') + R"("})";
  const absl::Status status = Prepare(body, Api::kCompletion).status();
  EXPECT_EQ(ReasonOf(status), Reason::kContextLengthExceeded) << status;
}

TEST_F(ModelTextTest, RawPromptsParseControlTokens) {
  absl::StatusOr<PreparedRequest> prepared =
      Prepare(R"({"prompt":"<|im_start|>user\nx"})", Api::kCompletion);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->prompts[0][0], *model_->text->IdOf("<|im_start|>"));
  EXPECT_EQ(prepared->start, ReasoningParser::Start::kContent);
}

TEST_F(ModelTextTest, BadWordsAreSpeltWithAndWithoutASpaceBefore) {
  const auto spellings = [&](const std::string& words) {
    absl::StatusOr<PreparedRequest> prepared =
        Prepare(R"({"prompt":"x","bad_words":)" + words + "}", Api::kCompletion);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    std::vector<std::string> texts;
    for (const std::vector<int32_t>& ids : prepared->bad_words) {
      texts.push_back(*model_->text->Decode(ids, false));
    }
    return texts;
  };
  using Texts = std::vector<std::string>;
  // " la" is a token, as "la" is; " 7" is two where "7" is one, and the second is "7" again.
  EXPECT_EQ(spellings(R"(["la"])"), (Texts{"la", " la"}));
  EXPECT_EQ(spellings(R"(["  la"])"), (Texts{"la", " la"}));
  EXPECT_EQ(spellings(R"(["7"])"), (Texts{"7"}));
}

TEST_F(ModelTextTest, WhatLeavesNoTokenIsRefused) {
  const auto status = [&](const std::string& fields) {
    return Prepare(
               R"({"prompt":"x","max_tokens":9,"allowed_token_ids":[1013,10,11],)" + fields + "}",
               Api::kCompletion)
        .status();
  };
  EXPECT_TRUE(status(R"("min_tokens":3)").ok());
  EXPECT_TRUE(status(R"("stop_token_ids":[10,11])").ok());
  const absl::Status refused = status(R"("min_tokens":3,"stop_token_ids":[10,11])");
  EXPECT_EQ(ReasonOf(refused), Reason::kInvalidValue) << refused;
  EXPECT_EQ(ParamOf(refused), "allowed_token_ids");
}

TEST_F(ModelTextTest, TheHashTellsRequestsWithOtherEditsApart) {
  std::vector<uint64_t> hashes;
  for (const char* fields :
       {"", R"(,"presence_penalty":1)", R"(,"frequency_penalty":1)", R"(,"repetition_penalty":1.5)",
        R"(,"logit_bias":{"5":1})", R"(,"logit_bias":{"5":2})", R"(,"allowed_token_ids":[5])",
        R"(,"bad_words":["la"])", R"(,"bad_words":["7"])"}) {
    absl::StatusOr<PreparedRequest> prepared =
        Prepare(std::string(R"({"prompt":"x")") + fields + "}", Api::kCompletion);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    hashes.push_back(HashOf(*prepared));
  }
  std::ranges::sort(hashes);
  EXPECT_EQ(std::ranges::adjacent_find(hashes), hashes.end());
}

}  // namespace
}  // namespace bottega::gateway
