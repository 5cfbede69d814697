#pragma once

namespace bottega {

// Whether this build runs under a sanitizer, which makes it several times slower: times after which
// a silent process is given up are longer then.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace bottega
