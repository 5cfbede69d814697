#pragma once

#include <cstddef>
#include <cstdint>

// Every queue, batch, message and input has a limit; all limits are named here, once. Full or past
// the limit means refuse, not grow. The message of a refusal names the limit and its value.
namespace bottega::limits {

// Model files.
inline constexpr size_t kSafetensorsHeaderBytesMax = 16u << 20;
inline constexpr size_t kTensorsMax = 200'000;
inline constexpr size_t kTensorRankMax = 8;
inline constexpr size_t kTokenizerBytesMax = 64u << 20;
inline constexpr size_t kConfigBytesMax = 1u << 20;
inline constexpr size_t kChatTemplateBytesMax = 1u << 20;
inline constexpr size_t kIndexBytesMax = 64u << 20;     // model.safetensors.index.json
inline constexpr size_t kManifestBytesMax = 64u << 20;  // of a packed directory

// Shapes a config may ask for. Products of any three fit 63 bits.
inline constexpr int64_t kVocabMax = 1 << 22;
inline constexpr int64_t kHiddenMax = 1 << 16;
inline constexpr int64_t kLayersMax = 1024;
inline constexpr int64_t kHeadsMax = 1024;
inline constexpr int64_t kHeadDimMax = 1024;
inline constexpr int64_t kExpertsMax = 4096;  // per layer
inline constexpr int64_t kFfnWidthMax = 1 << 18;
inline constexpr int64_t kPositionsMax = 1 << 20;  // the angle reduction of rope.h holds below

// Chat templates.
inline constexpr uint64_t kTemplateFuel = 1'000'000;
inline constexpr size_t kTemplateRecursionMax = 100;
inline constexpr size_t kTemplateOutputBytesMax = 4u << 20;
// All that the operations of one rendering read and make; bounds its memory and its time.
inline constexpr size_t kTemplateWorkBytesMax = 128u << 20;

// HTTP.
inline constexpr size_t kBodyBytesMax = 32u << 20;
inline constexpr size_t kHeaderBytesMax = 16u << 10;
inline constexpr size_t kHeaderCountMax = 100;
inline constexpr size_t kRequestLineBytesMax = 8u << 10;
inline constexpr size_t kRequestIdCharsMax = 128;
inline constexpr size_t kConnectionsMax = 4096;
inline constexpr size_t kStreamBufferBytesMax = 256u << 10;
inline constexpr size_t kJsonDepthMax = 64;
inline constexpr size_t kJsonValuesMax = 1'000'000;

// Requests.
inline constexpr size_t kMessagesMax = 1024;
inline constexpr size_t kPartsPerMessageMax = 64;
inline constexpr size_t kToolsMax = 128;
inline constexpr size_t kStopStringsMax = 16;
inline constexpr size_t kStopStringBytesMax = 256;
inline constexpr size_t kStopIdsMax = 64;
inline constexpr size_t kLogitBiasMax = 1024;  // entries, each of +-kLogitBiasMost
inline constexpr int kLogitBiasMost = 100;
inline constexpr size_t kBadWordsMax = 128;  // each is spelt in two ways at most
inline constexpr size_t kBadWordBytesMax = 256;
inline constexpr size_t kBadWordTokensMax = 512;
inline constexpr int kChoicesMax = 16;
inline constexpr int kTopLogprobsMax = 20;
inline constexpr size_t kToolNameCharsMax = 64;
inline constexpr size_t kCacheSaltCharsMax = 128;
inline constexpr size_t kPromptsMax = 128;              // in one body of /v1/completions
inline constexpr size_t kSequencesPerRequestMax = 128;  // prompts times n
inline constexpr size_t kRequestEventsMax = 8192;       // of one request, not yet looked at
inline constexpr int kMigrationsMax = 3;                // of one sequence to another worker
inline constexpr size_t kQueuedRequestsMax = 128;
inline constexpr size_t kRunningRequestsMax = 64;  // per attention worker
inline constexpr size_t kPrefillChunkTokens = 512;
inline constexpr int kDraftTokensMax = 64;  // drafted tokens of a decode step, all sequences
inline constexpr int kSequenceDraftTokensMax = 16;  // and of one

// Exchange.
inline constexpr size_t kFrameBytesMax = 16u << 20;
inline constexpr size_t kFrameTokensMax = 256;
inline constexpr size_t kPartBytesMax = 256u << 10;
// Of one dispatch, resends included: 512 tokens x 8 experts at 16 KiB a row and 256 KiB a part, to
// 16 workers, twice.
inline constexpr size_t kPartsMax = 1024;
// Rows in flight per attention-expert pair: a prefill chunk with 8 experts a token, for an expert's
// weights are read once for all rows that are there together (docs/decisions/0026).
inline constexpr size_t kCreditRows = 4096;
inline constexpr size_t kMergedRowsMax = 8192;  // of a piece of work at an expert worker
inline constexpr size_t kItemRowsMax = 512;     // of those, between two looks at the network
inline constexpr int kAttemptsMax = 3;
// Frames of a share that were damaged or lost: the wire's doing, so no attempt of the three.
inline constexpr int kDamagesMax = 16;

// Control streams (core/service) and the cluster table.
inline constexpr size_t kControlMessageBytesMax = 32u << 20;
inline constexpr size_t kStreamMessagesMax = 1024;         // queued, each way
inline constexpr size_t kStreamQueueBytesMax = 64u << 20;  // queued, each way
inline constexpr size_t kControlStreamsMax = 4096;         // open at one server
inline constexpr size_t kMembersMax = 4096;
inline constexpr size_t kMemberNameBytesMax = 128;
inline constexpr size_t kAddressBytesMax = 512;
inline constexpr size_t kTableExpertsMax = 1u << 20;  // layers * experts
inline constexpr size_t kAdminConnectionsMax = 64;

// Hash traces (bottega diff).
inline constexpr size_t kTraceLineBytesMax = 256;
inline constexpr size_t kTraceStagesMax = 64;  // different names of stages

// The chat's HTTP client: one event of a stream, a body that is no stream.
inline constexpr size_t kClientEventBytesMax = 1u << 20;
inline constexpr size_t kClientBodyBytesMax = 1u << 20;
inline constexpr size_t kClientPromptBytesMax = 16u << 20;  // piped into `bottega chat`

}  // namespace bottega::limits
