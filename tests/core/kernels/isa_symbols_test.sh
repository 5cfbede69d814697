#!/bin/sh
# Code compiled for one instruction set must not leak: a function under a name that other translation
# units share could be merged into them, and a static initialiser would run on every machine. So
# the AVX objects of the library $1 may define only names of their lane type and their table.
set -eu
leaks=0
for isa in avx2:Avx2 avx512:Avx512; do
  object="primitives_${isa%%:*}.cc.o"
  dir=$(mktemp -d)
  (cd "$dir" && ar x "$1" "$object")
  symbols=$(nm -C --defined-only "$dir/$object" | grep -E ' [TDBVWu] ' |
    grep -vE "${isa##*:}Lanes|k${isa##*:}Primitives|DW\.ref|__(a|ub|t)san|__odr_asan" || true)
  sections=$(readelf -S --wide "$dir/$object" | grep -E '\.(init_array|ctors)' || true)
  rm -r "$dir"
  case "$2" in *?*) sections="" ;; esac # a sanitizer registers its globals in init_array
  if [ -n "$symbols$sections" ]; then
    echo "$object defines more than its own lane code:"
    echo "$symbols$sections"
    leaks=1
  fi
done
exit $leaks
