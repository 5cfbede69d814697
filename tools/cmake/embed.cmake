# cmake -D ROOT=folder -D FILES=a;b -D OUTPUT=x.cc -P embed.cmake
# Writes bottega::gateway::PageFiles() of gateway/page_files.h: each file as an array of bytes, with what HTTP says of it.
# Needs CMake only (no xxd, no linker script), so that it is the same wherever the rest is built.
set(arrays "")
set(rows "")
foreach(name IN LISTS FILES)
  file(READ ${ROOT}/${name} hex HEX)
  file(SHA256 ${ROOT}/${name} digest)
  string(SUBSTRING ${digest} 0 32 digest)
  string(REGEX REPLACE "(................................................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  if(name STREQUAL "index.html")
    set(path "/")
  else()
    set(path "/page/${name}")
  endif()
  if(name MATCHES "\\.html$")
    set(type "text/html; charset=utf-8")
  elseif(name MATCHES "\\.js$")
    set(type "text/javascript; charset=utf-8")
  elseif(name MATCHES "\\.css$")
    set(type "text/css; charset=utf-8")
  else()
    message(FATAL_ERROR "${name}: no media type is known for it")
  endif()
  string(MAKE_C_IDENTIFIER "k_${name}" symbol)
  string(APPEND arrays "constexpr unsigned char ${symbol}[] = {\n${bytes}};\n")
  string(APPEND rows "    {\"${path}\", \"${type}\", \"\\\"${digest}\\\"\", View(${symbol})},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made by tools/cmake/embed.cmake.
#include \"gateway/page_files.h\"

namespace bottega::gateway {
namespace {

${arrays}
template <size_t size>
std::string_view View(const unsigned char (&bytes)[size]) {
  return {reinterpret_cast<const char*>(bytes), size};
}

const PageFile kFiles[] = {
${rows}};

}  // namespace

absl::Span<const PageFile> PageFiles() { return kFiles; }

}  // namespace bottega::gateway
")
