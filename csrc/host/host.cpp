// What Python is too slow for on the way from texts to batches (numpy in, numpy out): texts -> token ids (words.h), and
// ragged rows of token ids -> one batch, packed or padded.
//
// Letters: B rows of the batch, T tokens of its longest row, N tokens of all its rows.
// A data set is `values` (every token id, row after row) and `offsets` (row r is values[offsets[r] : offsets[r + 1]]).
// Only the rows asked for are looked at, so a batch costs O(B + T + N) however large the data set is.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "words.h"

namespace py = pybind11;

namespace {

using Index = std::int64_t;
using Array = py::array_t<Index, py::array::c_style>;

// Starting a thread costs some 30 us; 256 Ki tokens are 100 to 250 us of copying.
constexpr Index kTokensPerThread = Index{1} << 18;

// The copying is bound by memory, which a few threads saturate.
constexpr Index kMostThreads = 4;

std::string text(Index number) { return std::to_string(number); }

std::span<const Index> checked(const py::object& object, const std::string& name) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(name + ": expected a numpy array, got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!py::isinstance<py::array_t<Index>>(array)) {
    throw py::type_error(name + ": expected dtype int64, got " + std::string(py::str(array.dtype())));
  }
  if (array.ndim() != 1) {
    throw py::value_error(name + ": expected one dimension, got " + text(array.ndim()));
  }
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (!py::isinstance<Array>(array) || address % alignof(Index) != 0) {
    throw py::value_error(name + ": expected a contiguous, aligned array");
  }
  return {static_cast<const Index*>(array.data()), static_cast<std::size_t>(array.size())};
}

// The rows of one batch, checked. Everything later reads through this copy, so that a change of `offsets` or `rows` by
// another thread, once the GIL is released, cannot lead outside `values`.
struct Batch {
  std::vector<const Index*> source;  // (B) first token of each row
  std::vector<Index> length;         // (B)
  Index tokens = 0;                  // N
  Index longest = 0;                 // T

  Index rows() const { return static_cast<Index>(source.size()); }
};

Batch read_batch(const py::object& values_object, const py::object& offsets_object, const py::object& rows_object) {
  const auto values = checked(values_object, "values");
  const auto offsets = checked(offsets_object, "offsets");
  const auto rows = checked(rows_object, "rows");
  if (offsets.empty()) throw py::value_error("offsets: expected at least one entry, got none");
  if (rows.empty()) throw py::value_error("rows: a batch needs at least one row, got none");

  const auto size = static_cast<Index>(values.size());
  const auto count = static_cast<Index>(offsets.size()) - 1;
  Batch batch;
  batch.source.reserve(rows.size());
  batch.length.reserve(rows.size());
  for (const Index row : rows) {
    if (row < 0 || row >= count) {
      throw py::index_error("rows: row " + text(row) + " is out of range, there are " + text(count) + " rows");
    }
    const Index begin = offsets[row];
    const Index end = offsets[row + 1];
    if (begin < 0 || begin > end || end > size) {
      throw py::value_error("offsets: row " + text(row) + " runs from " + text(begin) + " to " + text(end) +
                            ", expected 0 <= from <= to <= " + text(size) + " (the number of values)");
    }
    if (begin == end) throw py::value_error("rows: row " + text(row) + " is empty, expected at least one token");
    batch.source.push_back(values.data() + begin);
    batch.length.push_back(end - begin);
    batch.longest = std::max(batch.longest, end - begin);
    if (__builtin_add_overflow(batch.tokens, end - begin, &batch.tokens)) {
      throw py::value_error("rows: the batch has more tokens than an int64 can count");
    }
  }
  return batch;
}

// Calls body(begin, end) on pieces that cover [0, size), without the GIL, in a few threads where the size pays for
// them.
template <typename Body>
void share(Index size, const Body& body) {
  const py::gil_scoped_release release;
  Index pieces = std::max(size / kTokensPerThread, Index{1});
  if (pieces > 1) {  // asking for the number of processors reads a system file, 5 us
    const auto processors = static_cast<Index>(std::thread::hardware_concurrency());  // 0 where it is not known
    pieces = std::min({pieces, std::max(processors, Index{1}), kMostThreads});
  }
  const Index step = size / pieces;

  std::vector<std::jthread> threads;  // joined where it goes out of scope
  Index begin = 0;
  try {
    for (; static_cast<Index>(threads.size()) < pieces - 1; begin += step)
      threads.emplace_back(body, begin, begin + step);
  } catch (const std::system_error&) {
    // No further thread to be had: the rest is done here.
  }
  body(begin, size);
}

// -> data (N) time-major, batch_sizes (T), sorted_indices (B), unsorted_indices (B): torch's PackedSequence, rows of
// one length in the order in which they were asked for.
py::tuple pack(const py::object& values, const py::object& offsets, const py::object& rows) {
  const Batch batch = read_batch(values, offsets, rows);
  Array data(batch.tokens);
  Array batch_sizes(batch.longest);
  Array sorted_indices(batch.rows());
  Array unsorted_indices(batch.rows());
  Index* const out = data.mutable_data();
  Index* const sizes = batch_sizes.mutable_data();
  Index* const sorted = sorted_indices.mutable_data();
  Index* const unsorted = unsorted_indices.mutable_data();

  // A counting sort. longer[t], the number of rows of more than t tokens, is both the size of step t and the place of
  // the first row of t tokens among the rows sorted longest first.
  std::vector<Index> longer(static_cast<std::size_t>(batch.longest) + 1);
  for (const Index length : batch.length) ++longer[length - 1];
  for (Index t = batch.longest - 1; t > 0; --t) longer[t - 1] += longer[t];
  std::copy_n(longer.begin(), batch.longest, sizes);

  std::vector<const Index*> source(batch.source.size());
  for (Index row = 0; row < batch.rows(); ++row) {
    const Index place = longer[batch.length[row]]++;
    sorted[place] = row;
    unsorted[row] = place;
    source[place] = batch.source[row];
  }

  share(batch.tokens, [&source, sizes, out](Index begin, Index end) {
    Index t = 0;
    Index first = 0;  // position of step t
    while (first + sizes[t] <= begin) first += sizes[t++];
    Index row = begin - first;
    for (Index position = begin; position < end; ++t, row = 0) {
      const Index stop = std::min(sizes[t], row + end - position);
      for (; row < stop; ++row) out[position++] = source[row][t];
    }
  });
  return py::make_tuple(data, batch_sizes, sorted_indices, unsorted_indices);
}

// -> ids (T, B), or (B, T) if batch_first, filled up with padding_id; lengths (B).
py::tuple pad(const py::object& values, const py::object& offsets, const py::object& rows, bool batch_first,
              Index padding_id) {
  const Batch batch = read_batch(values, offsets, rows);
  const Index B = batch.rows();
  const Index T = batch.longest;
  Index size = 0;
  if (__builtin_mul_overflow(B, T, &size)) {
    throw py::value_error("rows: the padded batch has more entries than an int64 can count");
  }
  Array ids(batch_first ? std::vector<py::ssize_t>{B, T} : std::vector<py::ssize_t>{T, B});
  Index* const out = ids.mutable_data();

  if (batch_first) {
    share(size, [&batch, T, padding_id, out](Index begin, Index end) {
      Index row = begin / T;
      Index t = begin % T;
      for (Index position = begin; position < end; ++row, t = 0) {
        const Index stop = std::min(T, t + end - position);
        const Index real = std::clamp(batch.length[row], t, stop);
        std::fill(std::copy(batch.source[row] + t, batch.source[row] + real, out + position), out + position + stop - t,
                  padding_id);
        position += stop - t;
      }
    });
  } else {
    share(size, [&batch, B, padding_id, out](Index begin, Index end) {
      Index t = begin / B;
      Index row = begin % B;
      for (Index position = begin; position < end; ++t, row = 0) {
        const Index stop = std::min(B, row + end - position);
        for (; row < stop; ++row) out[position++] = t < batch.length[row] ? batch.source[row][t] : padding_id;
      }
    });
  }
  return py::make_tuple(ids, Array(B, batch.length.data()));
}

// The characters of a str that has ASCII alone; else nothing to point to.
std::string_view ascii(py::handle object) {
  if (!PyUnicode_Check(object.ptr()) || !PyUnicode_IS_ASCII(object.ptr())) return {};
  return {reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(object.ptr())),
          static_cast<std::size_t>(PyUnicode_GET_LENGTH(object.ptr()))};
}

textclf_fast::WordIds make_word_ids(const py::tuple& tokens, Index unknown) {
  textclf_fast::WordIds ids(tokens.size(), unknown);
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (const std::string_view token = ascii(tokens[id]); token.data()) ids.add(token, static_cast<Index>(id));
  return ids;
}

// Characters: Python takes as long to be called as for some 32 of them. What is ASCII between two words that are not,
// and is shorter, goes to Python with these.
constexpr py::ssize_t kPythonCall = 32;

using Marks = std::optional<textclf_fast::WordIds::Marks>;

// The ids of a text that has other characters than ASCII: `others` gets the parts that have them. Parts end at spaces,
// across which neither the regular expression, lower() nor NFC looks.
void encode_mixed(const textclf_fast::WordIds& ids, const py::object& text, const py::function& others,
                  const Marks& marks, std::vector<Index>& values) {
  const int kind = PyUnicode_KIND(text.ptr());
  const void* const data = PyUnicode_DATA(text.ptr());
  const py::ssize_t size = PyUnicode_GET_LENGTH(text.ptr());
  const auto at = [kind, data](py::ssize_t i) { return PyUnicode_READ(kind, data, i); };
  std::string ascii;
  for (py::ssize_t i = 0; i < size;) {
    ascii.clear();
    std::size_t word = 0;  // where the last word begins
    for (; i < size && at(i) < 128; ++i) {
      ascii += static_cast<char>(at(i));
      if (at(i) == ' ') word = ascii.size();
    }
    if (i == size) word = ascii.size();
    ids.encode(std::string_view(ascii).substr(0, word), marks, values);
    if (i == size) break;

    const py::ssize_t begin = i - static_cast<py::ssize_t>(ascii.size() - word);
    py::ssize_t last = i;
    for (; i < size && i - last <= kPythonCall; ++i)
      if (at(i) >= 128) last = i;
    for (i = last + 1; i < size && at(i) != ' ';) ++i;
    const auto part = py::reinterpret_steal<py::object>(PyUnicode_Substring(text.ptr(), begin, i));
    if (!part) throw py::error_already_set();
    const py::object found = others(part);
    const auto numbers = checked(found, "others");
    values.insert(values.end(), numbers.begin(), numbers.end());
  }
}

// texts -> values (N), offsets (n + 1); one unknown token for a text that has none.
py::tuple encode(const textclf_fast::WordIds& ids, const py::list& texts, const py::function& others,
                 const std::optional<std::pair<Index, Index>>& given) {
  const Marks marks = given ? Marks({given->first, given->second}) : std::nullopt;
  std::vector<Index> values;
  std::vector<Index> offsets{0};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const py::object text = texts[i];
    if (const std::string_view characters = ascii(text); characters.data())
      ids.encode(characters, marks, values);
    else if (PyUnicode_Check(text.ptr()))
      encode_mixed(ids, text, others, marks, values);
    else
      others(text);  // says what is wrong with it
    if (static_cast<Index>(values.size()) == offsets.back()) values.push_back(ids.unknown());
    offsets.push_back(static_cast<Index>(values.size()));
  }
  const auto array = [](const std::vector<Index>& v) { return Array(static_cast<py::ssize_t>(v.size()), v.data()); };
  return py::make_tuple(array(values), array(offsets));
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Texts -> token ids, and ragged rows of these -> one batch, packed or padded. Used by textclf_fast.text.";
  py::class_<textclf_fast::WordIds>(m, "WordIds", "A vocabulary's tokens by number, for WordTokenizer's language.")
      .def(py::init(&make_word_ids), py::arg("tokens"), py::arg("unknown"))
      .def("encode", &encode, py::arg("texts"), py::arg("others"), py::arg("marks") = py::none(),
           "-> values (N,), offsets (n + 1,), int64; others(part): the ids of a part of a text that is not ASCII; "
           "marks: the ids of CasedTokenizer's two, whose tokens these are then.");
  m.def("pack", &pack, py::arg("values"), py::arg("offsets"), py::arg("rows"),
        "-> data (N,), batch_sizes (T,), sorted_indices (B,), unsorted_indices (B,), all int64; longest row first.");
  m.def("pad", &pad, py::arg("values"), py::arg("offsets"), py::arg("rows"), py::arg("batch_first"),
        py::arg("padding_id"), "-> ids (T, B) or (B, T), lengths (B,), all int64.");
}
