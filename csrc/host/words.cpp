#include "words.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace textclf_fast {
namespace {

enum Kind : std::uint8_t { kSpace, kLetter, kDigit, kUnderscore, kOther };

// As Python's str patterns see ASCII: \s has the separators 1c to 1f, too.
constexpr std::array<Kind, 256> make_kinds() {
  std::array<Kind, 256> kinds{};
  for (int c = 0; c < 256; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    kinds[std::size_t(c)] = letter                 ? kLetter
                            : c >= '0' && c <= '9' ? kDigit
                            : c == '_'             ? kUnderscore
                            : space                ? kSpace
                                                   : kOther;
  }
  return kinds;
}
constexpr auto kKinds = make_kinds();

std::uint32_t hash_of(std::string_view s) {  // FNV-1a: words are short
  std::uint32_t h = 2166136261u;
  for (const char c : s) h = (h ^ std::uint8_t(c)) * 16777619u;
  return h;
}

// Walks a text, lower-cased, as the regular expression does: its alternatives at each place, in their order.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  // The next token; empty at the end.
  std::string_view next() {
    while (at_ < text_.size() && kind(at_) == kSpace) ++at_;
    const std::size_t begin = at_;
    if (begin < text_.size()) at_ = end_of_token(begin);
    return text_.substr(begin, at_ - begin);
  }

 private:
  Kind kind(std::size_t i) const { return i < text_.size() ? kKinds[std::uint8_t(text_[i])] : kSpace; }
  char at(std::size_t i) const { return i < text_.size() ? text_[i] : ' '; }
  bool in_word(std::size_t i) const { return kind(i) == kLetter || kind(i) == kDigit; }
  bool word_boundary(std::size_t i) const { return !in_word(i) && kind(i) != kUnderscore; }
  template <class Holds>
  std::size_t run(std::size_t i, const Holds& holds) const {
    while (i < text_.size() && holds(i)) ++i;
    return i;
  }

  // '(?:s|m|d|re|ve|ll)\b from i on: where it ends, or i.
  std::size_t ending(std::size_t i) const {
    if (at(i) != '\'') return i;
    const char first = at(i + 1), second = at(i + 2);
    if ((first == 's' || first == 'm' || first == 'd') && word_boundary(i + 2)) return i + 2;
    const bool pair = (second == 'e' && (first == 'r' || first == 'v')) || (first == 'l' && second == 'l');
    return pair && word_boundary(i + 3) ? i + 3 : i;
  }

  std::size_t end_of_token(std::size_t i) const {
    const char c = text_[i];
    if (in_word(i)) {
      const std::size_t digits = run(i, [this](std::size_t j) { return kind(j) == kDigit; });
      if (digits > i) {  // \d+(?:[.,:]\d+)+
        std::size_t end = digits;
        while ((at(end) == '.' || at(end) == ',' || at(end) == ':') && kind(end + 1) == kDigit)
          end = run(end + 1, [this](std::size_t j) { return kind(j) == kDigit; });
        if (end > digits) return end;
      }
      std::size_t end = run(digits, [this](std::size_t j) { return in_word(j); });
      if (ending(end) > end) return end;
      while (at(end) == '\'' && in_word(end + 1)) end = run(end + 1, [this](std::size_t j) { return in_word(j); });
      return end;
    }
    if (c == '\'' && ending(i) > i) return ending(i);
    if (c == '.' || c == '-') {
      const std::size_t end = run(i, [this, c](std::size_t j) { return text_[j] == c; });
      if (end > i + 1) return end;
    }
    return i + 1;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

WordIds::WordIds(std::size_t most, std::int64_t unknown)
    : entries_(std::bit_ceil(std::max<std::size_t>(2 * most, 2))), unknown_(unknown) {}

void WordIds::add(std::string_view token, std::int64_t id) {
  const std::uint32_t hash = hash_of(token);
  std::size_t place = hash & (entries_.size() - 1);
  while (entries_[place].id >= 0) place = (place + 1) & (entries_.size() - 1);
  entries_[place] = {id, letters_.size(), hash, std::uint32_t(token.size())};
  letters_ += token;
}

std::int64_t WordIds::find(std::string_view token) const {
  const std::uint32_t hash = hash_of(token);
  for (std::size_t place = hash & (entries_.size() - 1);; place = (place + 1) & (entries_.size() - 1)) {
    const Entry& entry = entries_[place];
    if (entry.id < 0) return unknown_;
    if (entry.hash == hash && entry.size == token.size() &&
        std::memcmp(letters_.data() + entry.begin, token.data(), token.size()) == 0)
      return entry.id;
  }
}

void WordIds::encode(std::string_view ascii, std::vector<std::int64_t>& ids) const {
  std::string lower(ascii);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = char(c + ('a' - 'A'));
  const std::size_t before = ids.size();
  Scanner scanner(lower);
  for (std::string_view token = scanner.next(); !token.empty(); token = scanner.next()) ids.push_back(find(token));
  if (ids.size() == before) ids.push_back(unknown_);
}

}  // namespace textclf_fast
