// Text -> token ids, where it has ASCII characters alone: what WordTokenizer's and CasedTokenizer's regular expression
// (textclf_fast/text/tokenizer.py, which defines the language) finds in them, looked up without a Python object for
// each token. tests/text/test_words.py compares the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace textclf_fast {

// The tokens of a vocabulary by number: open addressing, at most half full.
class WordIds {
 public:
  // Room for `most` tokens. `unknown`: the id of a token that is not there.
  WordIds(std::size_t most, std::int64_t unknown);

  // Tokens with other than ASCII characters are in no ASCII text, and need not be added.
  void add(std::string_view token, std::int64_t id);
  std::int64_t find(std::string_view token) const;
  std::int64_t unknown() const { return unknown_; }

  // What CasedTokenizer puts before a word of which the first letter, or all letters, are capital ones.
  struct Marks {
    std::int64_t capitalized, all_capitals;
  };

  // Appends the ids of a text's tokens; with marks where there are some to be set.
  void encode(std::string_view ascii, const std::optional<Marks>& marks, std::vector<std::int64_t>& ids) const;

 private:
  struct Token {
    std::size_t begin, size;  // in letters_
    std::int64_t id;
  };
  struct Entry {  // small: a vocabulary of 10,000 is 256 kB
    std::uint32_t hash = 0;
    std::int32_t token = -1;  // -1: nothing is here
  };

  std::string letters_;  // of all tokens, one after the other
  std::vector<Token> tokens_;
  std::vector<Entry> entries_;
  std::int64_t unknown_;
};

}  // namespace textclf_fast
