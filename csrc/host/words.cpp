#include "words.h"

#include <algorithm>
#include <array>
#include <bit>

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

bool is_capital(char c) { return c >= 'A' && c <= 'Z'; }

// As str.isupper: there are letters, and no small ones.
bool all_capitals(std::string_view s) {
  return std::any_of(s.begin(), s.end(), is_capital) &&
         std::none_of(s.begin(), s.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

std::uint32_t hash_of(std::string_view s) {  // FNV-1a: words are short
  std::uint32_t h = 2166136261u;
  for (const char c : s) h = (h ^ std::uint8_t(c)) * 16777619u;
  return h;
}

// Walks a text, lower-cased, as the regular expression does: its alternatives at each place, in their order. The text
// is followed by kBeyond spaces, so that nobody asks where it ends.
constexpr std::size_t kBeyond = 3;
class Scanner {
 public:
  // `end`: without the spaces beyond.
  Scanner(const char* begin, const char* end) : at_(begin), end_(end) {}

  // The next token; empty at the end.
  std::string_view next() {
    while (kind(at_) == kSpace && at_ < end_) ++at_;
    const char* const begin = at_;
    if (begin < end_) at_ = end_of_token(begin);
    return {begin, at_};
  }

 private:
  static Kind kind(const char* c) { return kKinds[std::uint8_t(*c)]; }
  static bool in_word(const char* c) { return kind(c) == kLetter || kind(c) == kDigit; }
  static bool word_boundary(const char* c) { return !in_word(c) && kind(c) != kUnderscore; }
  static const char* past_digits(const char* c) {
    while (kind(c) == kDigit) ++c;
    return c;
  }
  static const char* past_word(const char* c) {
    while (in_word(c)) ++c;
    return c;
  }

  // '(?:s|m|d|re|ve|ll)\b from c on: where it ends, or c.
  static const char* ending(const char* c) {
    if (c[0] != '\'') return c;
    if ((c[1] == 's' || c[1] == 'm' || c[1] == 'd') && word_boundary(c + 2)) return c + 2;
    const bool pair = (c[2] == 'e' && (c[1] == 'r' || c[1] == 'v')) || (c[1] == 'l' && c[2] == 'l');
    return pair && word_boundary(c + 3) ? c + 3 : c;
  }

  static const char* end_of_token(const char* c) {
    if (in_word(c)) {
      const char* const digits = past_digits(c);
      if (digits > c) {  // \d+(?:[.,:]\d+)+
        const char* end = digits;
        while ((*end == '.' || *end == ',' || *end == ':') && kind(end + 1) == kDigit) end = past_digits(end + 1);
        if (end > digits) return end;
      }
      const char* end = past_word(digits);
      if (ending(end) > end) return end;
      while (*end == '\'' && in_word(end + 1)) end = past_word(end + 1);
      return end;
    }
    if (*c == '\'' && ending(c) > c) return ending(c);
    if (*c == '.' || *c == '-') {
      const char* end = c + 1;
      while (*end == *c) ++end;
      return end;
    }
    return c + 1;
  }

  const char* at_;
  const char* end_;
};

}  // namespace

WordIds::WordIds(std::size_t most, std::int64_t unknown)
    : entries_(std::bit_ceil(std::max<std::size_t>(2 * most, 2))), unknown_(unknown) {}

void WordIds::add(std::string_view token, std::int64_t id) {
  const std::uint32_t hash = hash_of(token);
  std::size_t place = hash & (entries_.size() - 1);
  while (entries_[place].token >= 0) place = (place + 1) & (entries_.size() - 1);
  entries_[place] = {hash, std::int32_t(tokens_.size())};
  tokens_.push_back({letters_.size(), token.size(), id});
  letters_ += token;
}

std::int64_t WordIds::find(std::string_view token) const {
  const std::uint32_t hash = hash_of(token);
  for (std::size_t place = hash & (entries_.size() - 1);; place = (place + 1) & (entries_.size() - 1)) {
    const Entry& entry = entries_[place];
    if (entry.token < 0) return unknown_;
    if (entry.hash != hash) continue;
    const Token& found = tokens_[std::size_t(entry.token)];
    if (std::string_view(letters_).substr(found.begin, found.size) == token) return found.id;
  }
}

void WordIds::encode(std::string_view ascii, const std::optional<Marks>& marks, std::vector<std::int64_t>& ids) const {
  std::string lower(ascii.size() + kBeyond, ' ');
  std::transform(ascii.begin(), ascii.end(), lower.begin(),
                 [](char c) { return is_capital(c) ? char(c + ('a' - 'A')) : c; });
  Scanner scanner(lower.data(), lower.data() + ascii.size());
  for (std::string_view token = scanner.next(); !token.empty(); token = scanner.next()) {
    if (marks) {
      const std::string_view written = ascii.substr(std::size_t(token.data() - lower.data()), token.size());
      if (token.size() > 1 && all_capitals(written))
        ids.push_back(marks->all_capitals);
      else if (is_capital(written[0]))
        ids.push_back(marks->capitalized);
    }
    ids.push_back(find(token));
  }
}

}  // namespace textclf_fast
