#include "core/text/detokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/core/text/small_tokenizers.h"

namespace bottega {
namespace {

using nlohmann::ordered_json;

Tokenizer LoadOrDie(const ordered_json& json) {
  auto tokenizer = Tokenizer::Load(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

bool IsWholeUtf8(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore) ==
         nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What is streamed, checking that every piece is whole code points.
std::string Stream(const Tokenizer& tokenizer, absl::Span<const int32_t> ids, bool skip) {
  StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (int32_t id : ids) {
    std::string piece = decoder.Push(id);
    EXPECT_TRUE(IsWholeUtf8(piece)) << testing::PrintToString(piece);
    text += piece;
  }
  std::string rest = decoder.Flush();
  EXPECT_TRUE(IsWholeUtf8(rest));
  return text + rest;
}

const char* const kTexts[] = {"",
                              "ciao",
                              " ciao cia",
                              "  due spazi  ",
                              "perché è così",
                              "日本語テキスト",
                              "🙂👩‍👩‍👧‍👦🏳️‍🌈 fine",
                              "e\u0301 a\u0300\u0301",
                              "a\nb\r\n\tc",
                              "<|im_start|>ciao<think>cé</think><|im_end|>",
                              "\uFFFD\uFFFD vero",
                              "ça va, ciao? a"};

struct Family {
  const char* name;
  ordered_json (*make)();
};

class StreamDecoderOf : public testing::TestWithParam<Family> {};

TEST_P(StreamDecoderOf, EveryPrefixEqualsDecode) {
  Tokenizer tokenizer = LoadOrDie(GetParam().make());
  for (const char* text : kTexts) {
    for (bool add_special : {false, true}) {
      auto ids = tokenizer.Encode(text, {.add_special_tokens = add_special});
      ASSERT_TRUE(ids.ok()) << ids.status();
      for (bool skip : {false, true}) {
        for (size_t n = 0; n <= ids->size(); ++n) {
          auto prefix = absl::MakeConstSpan(*ids).first(n);
          // A byte-fallback run cut inside a character is replaced as a whole by Decode; what was
          // streamed before it is certain all the same.
          bool cut = std::string(GetParam().name) == "ByteFallback" && n < ids->size();
          std::string streamed = Stream(tokenizer, prefix, skip);
          std::string decoded = tokenizer.Decode(prefix, skip).value();
          if (cut && streamed != decoded) {
            EXPECT_NE(decoded.find("\uFFFD"), std::string::npos);
            continue;
          }
          EXPECT_EQ(streamed, decoded) << text << ", " << n << " tokens";
        }
      }
    }
  }
}

TEST_P(StreamDecoderOf, PiecesAreNeverTakenBack) {
  Tokenizer tokenizer = LoadOrDie(GetParam().make());
  for (const char* text : kTexts) {
    std::vector<int32_t> ids = tokenizer.Encode(text, {}).value();
    StreamDecoder decoder(tokenizer, false);
    std::string so_far;
    std::string whole = tokenizer.Decode(ids, false).value();
    for (int32_t id : ids) {
      so_far += decoder.Push(id);
      EXPECT_EQ(whole.substr(0, so_far.size()), so_far);
    }
  }
}

TEST_P(StreamDecoderOf, AnyIdsGiveWholeCodePointsAtBoundedCost) {
  Tokenizer tokenizer = LoadOrDie(GetParam().make());
  std::mt19937 random(11);
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> ids(400);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % tokenizer.vocab_size());
    StreamDecoder decoder(tokenizer, false);
    for (int32_t id : ids) EXPECT_TRUE(IsWholeUtf8(decoder.Push(id)));
    EXPECT_TRUE(IsWholeUtf8(decoder.Flush()));
    // At most 16 tokens are looked at for each, twice, each at most 12 bytes of text.
    EXPECT_LE(decoder.decoded_bytes(), ids.size() * 2 * 2 * 16 * 12);
  }
}

TEST_P(StreamDecoderOf, CostGrowsWithTheTextAndNotItsSquare) {
  Tokenizer tokenizer = LoadOrDie(GetParam().make());
  auto cost = [&](size_t repeats) {
    std::string text;
    for (size_t i = 0; i < repeats; ++i) text += "ciao a ";
    StreamDecoder decoder(tokenizer, false);
    std::vector<int32_t> ids = tokenizer.Encode(text, {}).value();
    for (int32_t id : ids) decoder.Push(id);
    return decoder.decoded_bytes();
  };
  EXPECT_LE(cost(4000), cost(1000) * 5);
}

TEST_P(StreamDecoderOf, SpecialTokensAreLeftOutWithoutATrace) {
  Tokenizer tokenizer = LoadOrDie(GetParam().make());
  std::vector<int32_t> ids = tokenizer.Encode("ciao ciao a", {}).value();
  for (const AddedToken& token : tokenizer.added_tokens()) {
    if (!token.special) continue;
    for (size_t at = 0; at <= ids.size(); ++at) {
      std::vector<int32_t> with = ids;
      with.insert(with.begin() + at, token.id);
      EXPECT_EQ(Stream(tokenizer, with, true), tokenizer.Decode(with, true).value());
      EXPECT_EQ(Stream(tokenizer, with, true), Stream(tokenizer, ids, false));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, StreamDecoderOf,
                         testing::Values(Family{"ByteLevel", ByteLevelTokenizer},
                                         Family{"ByteFallback", ByteFallbackTokenizer},
                                         Family{"WordPiece", WordPieceTokenizer},
                                         Family{"Unigram", UnigramTokenizer}),
                         [](const auto& info) { return std::string(info.param.name); });

// Byte-level is exact for anything at all: half characters, overlong forms, surrogates, stray
// bytes.
TEST(StreamDecoder, ByteLevelEqualsDecodeForAnyBytes) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  std::mt19937 random(3);
  const int32_t interesting[] = {0xC3, 0xA9, 0xF0, 0x9F, 0x99, 0x82, 0xE0, 0xED, 0xA0, 0x80,
                                 0xF4, 0x90, 0xC0, 0xFF, 'a',  259,  260,  264,  262};
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids(1 + random() % 12);
    for (int32_t& id : ids) {
      id = random() % 3 == 0 ? static_cast<int32_t>(random() % tokenizer.vocab_size())
                             : interesting[random() % std::size(interesting)];
    }
    for (bool skip : {false, true}) {
      ASSERT_EQ(Stream(tokenizer, ids, skip), tokenizer.Decode(ids, skip).value())
          << testing::PrintToString(ids);
    }
  }
}

TEST(StreamDecoder, HoldsHalfACharacterBackAndNothingElse) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  StreamDecoder decoder(tokenizer, false);
  EXPECT_EQ(decoder.Push('a'), "a");
  EXPECT_EQ(decoder.Push(0xF0), "");
  EXPECT_EQ(decoder.Push(0x9F), "");
  EXPECT_EQ(decoder.Push(0x99), "");
  EXPECT_EQ(decoder.Push(0x82), "🙂");
  EXPECT_EQ(decoder.Push(260), "");         // F0 9F
  EXPECT_EQ(decoder.Push('b'), "\uFFFDb");  // it can become nothing any more
  EXPECT_EQ(decoder.Push(0xC3), "");
  EXPECT_EQ(decoder.Flush(), "\uFFFD");
  EXPECT_EQ(decoder.Flush(), "");
  EXPECT_EQ(decoder.Push('c'), "c");
}

TEST(StreamDecoder, AnIdThatDoesNotExistAddsNothing) {
  Tokenizer tokenizer = LoadOrDie(ByteLevelTokenizer());
  StreamDecoder decoder(tokenizer, false);
  EXPECT_EQ(decoder.Push(-1), "");
  EXPECT_EQ(decoder.Push(tokenizer.vocab_size()), "");
  EXPECT_EQ(decoder.Push('a'), "a");
}

TEST(StreamDecoder, LeadingSpaceOfSentencePiece) {
  Tokenizer tokenizer = LoadOrDie(ByteFallbackTokenizer());
  int32_t ci = *tokenizer.IdOf("▁ci");
  StreamDecoder decoder(tokenizer, false);
  EXPECT_EQ(decoder.Push(ci), "ci");
  EXPECT_EQ(decoder.Push(ci), " ci");
  EXPECT_EQ(decoder.Push(*tokenizer.IdOf("<0xC3>")), "");
  EXPECT_EQ(decoder.Push(*tokenizer.IdOf("<0xA9>")), "é");
  EXPECT_EQ(decoder.Push(ci), " ci");
}

}  // namespace
}  // namespace bottega
