#include "core/text/tokenizer.h"

#include <random>
#include <set>
#include <thread>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/text/rust/bottega_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/text/small_tokenizers.h"

namespace bottega {
namespace {

using nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

Tokenizer LoadOrDie(const ordered_json& json) {
  auto tokenizer = Tokenizer::Load(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text, bool parse = true) {
  auto ids = tokenizer.Encode(text, {.parse_special_tokens = parse});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>{});
}

TEST(Tokenizer, EncodesAndDecodes) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  EXPECT_THAT(Encode(tokenizer, "ciao cié"), ElementsAre(257, 'o', 258, 259));
  for (std::string text :
       {"", " ", "ciao", "perché no?\n\n  x", "日本 🙂👩‍👩‍👧 e\u0301", "a\0b"}) {
    EXPECT_EQ(tokenizer.Decode(Encode(tokenizer, text), false).value(), text);
  }
}

TEST(Tokenizer, AddedTokensAreFoundOrArePlainText) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  EXPECT_THAT(Encode(tokenizer, "<|im_start|>a/turbo<think>"), ElementsAre(262, 'a', 266, 264));
  // Special or not: spelled out.
  std::string text = "<|im_start|>a/turbo<think></think><|im_end|>";
  std::vector<int32_t> plain = Encode(tokenizer, text, /*parse=*/false);
  for (int32_t id : plain) EXPECT_LT(id, 262);
  EXPECT_EQ(tokenizer.Decode(plain, true).value(), text);
}

TEST(Tokenizer, AddedTokenInsideTheModelsVocabularyIsPlainTextToo) {
  // "<s>" is a word of the model that `ignore_merges` would find without any added token.
  ordered_json json = ByteLevelTokenizer();
  json["pre_tokenizer"] = json["pre_tokenizer"]["pretokenizers"][1];
  json["model"]["ignore_merges"] = true;
  json["model"]["vocab"]["<s>"] = 262;
  json["added_tokens"] = {{{"id", 262},
                           {"content", "<s>"},
                           {"single_word", false},
                           {"lstrip", false},
                           {"rstrip", false},
                           {"normalized", false},
                           {"special", true}}};
  Tokenizer tokenizer = LoadOrDie(json);
  EXPECT_THAT(Encode(tokenizer, "<s>"), ElementsAre(262));
  EXPECT_THAT(Encode(tokenizer, "<s>", /*parse=*/false), ElementsAre('<', 's', '>'));
}

TEST(Tokenizer, SkipSpecialLeavesOutSpecialTokensOnly) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  std::vector<int32_t> ids = {262, 'a', 264, 'b', 265, 263};
  EXPECT_EQ(tokenizer.Decode(ids, false).value(), "<|im_start|>a<think>b</think><|im_end|>");
  EXPECT_EQ(tokenizer.Decode(ids, true).value(), "a<think>b</think>");
}

TEST(Tokenizer, PostProcessorAddsOnlyWhenAsked) {
  Tokenizer tokenizer = LoadOrDie(WordPieceTokenizer());
  EXPECT_THAT(tokenizer.Encode("ciao", {.add_special_tokens = true}).value(), ElementsAre(1, 3, 2));
  EXPECT_THAT(tokenizer.Encode("ciao", {.add_special_tokens = false}).value(), ElementsAre(3));
}

TEST(Tokenizer, Vocabulary) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  EXPECT_EQ(tokenizer.vocab_size(), 267);
  EXPECT_EQ(tokenizer.TokenText(258).value(), PrintableByte(' ') + "ci");
  EXPECT_EQ(tokenizer.TokenBytes(258).value(), " ci");
  EXPECT_EQ(tokenizer.TokenBytes(260).value(), "\xF0\x9F");
  for (int b = 0; b < 256; ++b)
    EXPECT_EQ(tokenizer.TokenBytes(b).value(), std::string(1, static_cast<char>(b)));
  EXPECT_EQ(tokenizer.TokenBytes(264).value(), "<think>");
  EXPECT_EQ(tokenizer.IdOf("<think>"), 264);
  EXPECT_EQ(tokenizer.IdOf("cia"), 257);
  EXPECT_EQ(tokenizer.IdOf("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer.IdOf("\xFF"), std::nullopt);
  EXPECT_EQ(tokenizer.longest_token_bytes(), std::string("<|im_start|>").size());
  ASSERT_EQ(tokenizer.added_tokens().size(), 5u);
  EXPECT_EQ(tokenizer.added_tokens()[0].content, "<|im_start|>");
  EXPECT_TRUE(tokenizer.added_tokens()[0].special);
  EXPECT_FALSE(tokenizer.added_tokens()[2].special);
}

TEST(Tokenizer, BytesOfOtherFamilies) {
  Tokenizer fallback = LoadOrDie(ByteFallbackTokenizer());
  EXPECT_EQ(fallback.TokenBytes(*fallback.IdOf("▁ci")).value(), " ci");
  EXPECT_EQ(fallback.TokenBytes(*fallback.IdOf("<0xC3>")).value(), "\xC3");
  Tokenizer pieces = LoadOrDie(WordPieceTokenizer());
  EXPECT_EQ(pieces.TokenBytes(*pieces.IdOf("come")).value(), " come");
  EXPECT_EQ(pieces.TokenBytes(*pieces.IdOf("##mo")).value(), "mo");
}

TEST(Tokenizer, RefusesWrongInput) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  auto bad_text = tokenizer.Encode("a\xFF", {});
  EXPECT_EQ(ReasonOf(bad_text.status()), Reason::kInvalidValue);
  for (int32_t id : {-1, 267, 1 << 30, INT32_MIN, INT32_MAX}) {
    std::vector<int32_t> ids = {1, id};
    EXPECT_EQ(ReasonOf(tokenizer.Decode(ids, false).status()), Reason::kInvalidValue);
    EXPECT_FALSE(tokenizer.TokenText(id).ok());
    EXPECT_FALSE(tokenizer.TokenBytes(id).ok());
  }
}

// Long runs of anything: one id for each, nothing lost, and (by the test's hang limit) no quadratic
// cost.
TEST(Tokenizer, R9_LongRuns) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  constexpr size_t kCount = 131072;
  for (std::string unit : {"x", " ", "\n", "漢", "e\u0301", "🙂", "<", "7", "<think>", "ciao "}) {
    std::string text;
    for (size_t i = 0; i < kCount; ++i) text += unit;
    std::vector<int32_t> ids = Encode(tokenizer, text);
    EXPECT_GE(ids.size(), kCount / 2) << unit;
    EXPECT_EQ(tokenizer.Decode(ids, false).value(), text) << unit;
  }
}

TEST(Tokenizer, SaysWhenTheSplitPatternGivesUp) {
  ordered_json json = ByteLevelTokenizer();
  // Steps back for ever: a letter may belong to either repetition.
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(?:x+)+(?!x)y";
  Tokenizer tokenizer = LoadOrDie(json);
  auto ids = tokenizer.Encode(std::string(100'000, 'x'), {});
  EXPECT_FALSE(ids.ok());
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("pattern gave up"));
}

struct Damage {
  const char* name;
  std::function<void(ordered_json&)> apply;
  const char* said;
};

class DamagedTokenizer : public testing::TestWithParam<Damage> {};

TEST_P(DamagedTokenizer, IsRefusedByName) {
  ordered_json json = ByteLevelTokenizer();
  GetParam().apply(json);
  auto tokenizer = Tokenizer::Load(json.dump());
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(ReasonOf(tokenizer.status()), Reason::kModelRefused) << tokenizer.status();
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json"));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(GetParam().said));
}

ordered_json& Pre(ordered_json& json) { return json["pre_tokenizer"]["pretokenizers"][0]; }

INSTANTIATE_TEST_SUITE_P(
    All, DamagedTokenizer,
    testing::Values(
        Damage{"MergeOfMissingToken",
               [](auto& j) {
                 j["model"]["merges"].push_back({"zz", "a"});
               },
               "zz"},
        Damage{"MergeMakesMissingToken",
               [](auto& j) {
                 j["model"]["merges"].push_back({"a", "b"});
               },
               "ab"},
        Damage{"GapInVocabulary", [](auto& j) { j["model"]["vocab"]["cia"] = 5000; }, "5000"},
        Damage{"HugeId", [](auto& j) { j["model"]["vocab"]["cia"] = 4294967295u; }, "4294967295"},
        Damage{"TwoTokensOneId", [](auto& j) { j["model"]["vocab"]["cia"] = 7; }, "id"},
        Damage{"NegativeId", [](auto& j) { j["model"]["vocab"]["cia"] = -1; }, "-1"},
        Damage{"IdPast32Bits", [](auto& j) { j["model"]["vocab"]["cia"] = 1ll << 40; },
               "1099511627776"},
        Damage{"AddedTokenGap", [](auto& j) { j["added_tokens"][4]["id"] = 300; }, "/turbo"},
        Damage{"AddedTokenTakesAnId", [](auto& j) { j["added_tokens"][4]["id"] = 5; }, "/turbo"},
        Damage{"AddedTokenTwice",
               [](auto& j) { j["added_tokens"].push_back(j["added_tokens"][0]); }, "twice"},
        Damage{"AddedTokenEmpty", [](auto& j) { j["added_tokens"][4]["content"] = ""; },
               "added_tokens"},
        Damage{"UnknownPreTokenizer", [](auto& j) { Pre(j)["type"] = "Shredder"; }, "Shredder"},
        Damage{"UnknownPreTokenizerThatFits",
               [](auto& j) { j["pre_tokenizer"]["pretokenizers"][1]["type"] = "ByteLevel2"; },
               "ByteLevel2"},
        Damage{"PreTokenizerWithoutType", [](auto& j) { Pre(j).erase("type"); }, "without a type"},
        Damage{"UnknownNormalizer",
               [](auto& j) {
                 j["normalizer"] = {{"type", "NFQ"}};
               },
               "NFQ"},
        Damage{"UnknownDecoder", [](auto& j) { j["decoder"]["type"] = "Oracle"; }, "Oracle"},
        Damage{"UnknownPostProcessor",
               [](auto& j) {
                 j["post_processor"] = {{"type", "Censor"}};
               },
               "Censor"},
        Damage{"UnknownModel", [](auto& j) { j["model"]["type"] = "TikToken"; }, "TikToken"},
        Damage{"NoModel", [](auto& j) { j.erase("model"); }, "model"},
        Damage{"EmptyVocabulary",
               [](auto& j) {
                 j["model"]["vocab"] = ordered_json::object();
                 j["model"]["merges"] = ordered_json::array();
                 j["added_tokens"] = ordered_json::array();
               },
               "empty"},
        Damage{"BrokenPattern", [](auto& j) { Pre(j)["pattern"]["Regex"] = "(["; }, "Pars"},
        Damage{"NestedPattern",
               [](auto& j) { Pre(j)["pattern"]["Regex"] = std::string(60'000, '('); }, ""},
        Damage{"HugeRepetition",
               [](auto& j) { Pre(j)["pattern"]["Regex"] = "(?:(?:a{1000}){1000}){1000}"; }, ""},
        Damage{"UnknownBehavior", [](auto& j) { Pre(j)["behavior"] = "Guess"; }, "Guess"},
        Damage{"Dropout", [](auto& j) { j["model"]["dropout"] = 0.1; }, "dropout"},
        Damage{"OtherVersion", [](auto& j) { j["version"] = "2.0"; }, "2.0"},
        Damage{"VocabularyIsAString", [](auto& j) { j["model"]["vocab"] = "x"; }, ""},
        Damage{"NotAnObject",
               [](auto& j) {
                 j = ordered_json::array({1, 2});
               },
               ""}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Tokenizer, RefusesWhatIsNoJson) {
  for (std::string text :
       {std::string(), std::string("{"), std::string("null"), std::string(1 << 20, '['),
        std::string("\xFF\xFE"), std::string("{\"version\":\"1.0\"}")}) {
    auto tokenizer = Tokenizer::Load(text);
    ASSERT_FALSE(tokenizer.ok()) << text.substr(0, 40);
    EXPECT_EQ(ReasonOf(tokenizer.status()), Reason::kModelRefused);
  }
}

TEST(Tokenizer, RefusesTooManyBytesBeforeReadingThem) {
  auto tokenizer = Tokenizer::Load(std::string(limits::kTokenizerBytesMax + 1, ' '));
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(std::string(tokenizer.status().message()),
              HasSubstr(std::to_string(limits::kTokenizerBytesMax)));
}

TEST(Tokenizer, M10_SurvivesEveryCutAndAnyChangedByte) {
  std::string whole = ByteFallbackTokenizer().dump();
  for (size_t size = 0; size < whole.size(); size += 7) {
    EXPECT_FALSE(Tokenizer::Load(std::string_view(whole).substr(0, size)).ok());
  }
  std::mt19937 random(7);
  size_t loaded = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string changed = whole;
    for (int n = 0; n < 3; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    auto tokenizer = Tokenizer::Load(changed);
    if (!tokenizer.ok()) continue;
    ++loaded;
    auto ids = tokenizer->Encode("ciao a\xF0\x9F\x99\x82<s>", {.add_special_tokens = true});
    if (ids.ok()) {
      EXPECT_TRUE(tokenizer->Decode(*ids, true).ok());
    }
  }
  EXPECT_LT(loaded, 1000u);
}

TEST(Tokenizer, ManyThreadsOneAnswer) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "ciao " + std::to_string(i) + " <think>é🙂";
  std::vector<int32_t> expected = Encode(tokenizer, text);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(Encode(tokenizer, text), expected);
        EXPECT_EQ(tokenizer.Decode(expected, false).value(), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TextAbi, APanicIsAStatus) {
  bottega_text_bytes message{nullptr, 0};
  EXPECT_EQ(bottega_text_panic_for_test(&message), BOTTEGA_TEXT_PANIC);
  EXPECT_THAT(std::string(message.data, message.size), HasSubstr("asked for by a test"));
  bottega_text_free_bytes(message);
}

}  // namespace
}  // namespace bottega
