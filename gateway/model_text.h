#pragma once

#include <memory>
#include <string>

#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "gateway/text.h"

namespace bottega {

// The gateway's text over a model's own tokenizer and template. Without a template chat is refused.
// `template_source` is what `chat_template` was compiled from.
std::shared_ptr<const GatewayText> MakeGatewayText(
    std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template,
    const std::string& template_source);

}  // namespace bottega
