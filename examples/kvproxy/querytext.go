package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// queryText is a query string that is read from its beginning. After the first error, err is set,
// and nothing more is read.
type queryText struct {
	text   string
	at     int // how much has been read
	params map[string]string
	err    error
}

func (t *queryText) fail(format string, args ...any) {
	if t.err == nil {
		t.err = replyErrorf(format, args...)
	}
}

func (t *queryText) syntaxError() {
	near, _, _ := strings.Cut(t.text[t.at:], " ")
	t.fail("Syntax error at offset %d near %s (only *, @field:..., |, -, parentheses and =>[KNN ...] are supported)",
		t.at, near[:min(len(near), 32)])
}

// more skips blanks and reports whether something comes after them.
func (t *queryText) more() bool {
	for t.at < len(t.text) && strings.IndexByte(" \t\r\n", t.text[t.at]) >= 0 {
		t.at++
	}
	return t.err == nil && t.at < len(t.text)
}

// starts reports whether this comes next, in upper or lower case.
func (t *queryText) starts(token string) bool {
	return t.more() && len(t.text)-t.at >= len(token) && strings.EqualFold(t.text[t.at:t.at+len(token)], token)
}

// skip reads this if it comes next.
func (t *queryText) skip(token string) bool {
	if !t.starts(token) {
		return false
	}
	t.at += len(token)
	return true
}

// expect reads this, which must come next.
func (t *queryText) expect(token string) {
	if !t.skip(token) {
		t.syntaxError()
	}
}

// all reads a * in any number of parentheses, which asks for all documents. If something else comes
// next, it reads nothing.
func (t *queryText) all() bool {
	from, open := t.at, 0
	for t.skip("(") {
		open++
	}
	if !t.skip("*") {
		t.at = from
		return false
	}
	for range open {
		t.expect(")")
	}
	return true
}

// word reads letters, digits, underscores, bytes that aren't ASCII, and whatever has a backslash
// before it.
func (t *queryText) word() string {
	var word []byte
	for t.more(); t.err == nil && t.at < len(t.text); t.at++ {
		c := t.text[t.at]
		if c == '\\' && t.at+1 < len(t.text) {
			t.at++
			c = t.text[t.at]
		} else if r := rune(c); c < utf8.RuneSelf && c != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		word = append(word, c)
	}
	if len(word) == 0 {
		t.syntaxError()
	}
	return string(word)
}

// quoted reads up to the closing quote. In quotes a backslash is special only before a quote or
// another backslash.
func (t *queryText) quoted() string {
	var text []byte
	for t.err == nil && t.at < len(t.text) {
		c := t.text[t.at]
		t.at++
		switch {
		case c == '"':
			return string(text)
		case c == '\\' && t.at < len(t.text) && strings.IndexByte(`"\`, t.text[t.at]) >= 0:
			c = t.text[t.at]
			t.at++
		}
		text = append(text, c)
	}
	t.syntaxError()
	return ""
}

// value reads a word or a parameter.
func (t *queryText) value() string {
	if t.skip("$") {
		return t.parameter()
	}
	return t.word()
}

// parameter reads the name of a parameter and returns its value.
func (t *queryText) parameter() string {
	name := t.word()
	value, ok := t.params[name]
	if !ok {
		t.fail("No such parameter `%.128s`", name)
	}
	return value
}

// number reads a number from 0 to high.
func (t *queryText) number(name string, high int) int {
	value := t.value()
	if t.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, 63)
	switch {
	case err != nil:
		t.fail("Invalid numeric value (%.128s) for parameter `%s`", value, name)
	case n > uint64(high):
		t.fail("Error parsing vector similarity query: query KNN %s parameter is too large, must not exceed %d", name, high)
	}
	return int(n)
}

// attribute reads the name of an indexed attribute that is of a kind. If kind is empty, any kind
// will do. After an error it returns an empty attribute.
func (t *queryText) attribute(s *schema, kind attributeKind) *attribute {
	t.expect("@")
	from := t.at - 1
	name := t.word()
	if t.err != nil {
		return new(attribute)
	}
	at := s.attribute(name)
	switch {
	case at == nil:
		t.fail("Unknown field at offset %d near %.128s", from, name)
	case kind != "" && at.Kind != kind:
		t.fail("Expected a %s field at offset %d near %.128s", kind, from, name)
	case at.has("NOINDEX"):
		t.fail("Expected a field without NOINDEX at offset %d near %.128s", from, name)
	default:
		return at
	}
	return new(attribute)
}
