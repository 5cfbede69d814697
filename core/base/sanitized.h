#pragma once

namespace bottega {

// Whether this build runs under a sanitizer, which makes it several times slower: times after which
// a silent process is given up are longer then.
#if defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BOTTEGA_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // gcc
#define BOTTEGA_SANITIZED 1
#endif

#ifdef BOTTEGA_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace bottega
