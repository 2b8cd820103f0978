package main

import (
	"math"
	"strconv"
	"strings"
)

// The limits of a filter. Every node that answers the search reads it.
const (
	maxFilterDepth = 64
	maxFilterSize  = 1024 // clauses and tags
)

// filter restricts a search to some documents. It travels to the peers as JSON. Exactly one of And,
// Or, Not and Attribute is set.
type filter struct {
	And []filter `json:",omitempty"`
	Or  []filter `json:",omitempty"`
	Not *filter  `json:",omitempty"`

	Attribute string       `json:",omitempty"` // the name of one
	Tags      [][]byte     `json:",omitempty"` // TAG: the document has one of these, see [attribute.tags]
	Range     *numberRange `json:",omitempty"` // NUMERIC
	Text      []byte       `json:",omitempty"` // TEXT: the field has these bytes in it
}

// numberRange is a range of numbers. A nil bound is infinite.
type numberRange struct {
	Min, Max         *float64
	MinOpen, MaxOpen bool // the bound itself is not in the range
}

// filterParser reads a filter. A query of clauses has this grammar, from what binds least:
//
//	union:  all { "|" all }
//	all:    one { one }
//	one:    "-" one | "(" union ")" | "@" attribute ":" clause
//	clause: "{" tag { "|" tag } "}" | "[" bound bound "]" | text
type filterParser struct {
	*queryText
	schema *schema
	size   int
}

func (p *filterParser) union(depth int) filter {
	list := []filter{p.all(depth)}
	for p.skip("|") {
		list = append(list, p.all(depth))
	}
	if len(list) == 1 {
		return list[0]
	}
	return filter{Or: list}
}

func (p *filterParser) all(depth int) filter {
	list := []filter{p.one(depth)}
	for p.starts("-") || p.starts("(") || p.starts("@") {
		list = append(list, p.one(depth))
	}
	if len(list) == 1 {
		return list[0]
	}
	return filter{And: list}
}

func (p *filterParser) one(depth int) filter {
	if depth++; depth > maxFilterDepth {
		p.fail("Query is nested more than %d levels deep", maxFilterDepth)
	}
	p.count()
	switch {
	case p.err != nil:
		return filter{}
	case p.skip("-"):
		not := p.one(depth)
		return filter{Not: &not}
	case p.skip("("):
		f := p.union(depth)
		p.expect(")")
		return f
	}
	return p.clause()
}

// count counts a clause or a tag.
func (p *filterParser) count() {
	if p.size++; p.size > maxFilterSize {
		p.fail("Query has more than %d clauses and tags", maxFilterSize)
	}
}

func (p *filterParser) clause() filter {
	at := p.attribute(p.schema, "")
	f := filter{Attribute: at.Name}
	p.expect(":")
	switch at.Kind {
	case tagAttr:
		p.expect("{")
		f.Tags = [][]byte{p.tag(at)}
		for p.skip("|") {
			f.Tags = append(f.Tags, p.tag(at))
		}
		p.expect("}")
	case numericAttr:
		p.expect("[")
		f.Range = new(numberRange)
		f.Range.Min, f.Range.MinOpen = p.bound(-1)
		f.Range.Max, f.Range.MaxOpen = p.bound(+1)
		p.expect("]")
	case textAttr:
		f.Text = []byte(p.substring())
	case vectorAttr:
		p.fail("VECTOR_RANGE is not supported, at offset %d near %.128s", p.at, at.Name)
	}
	return f
}

// tag reads a tag: a parameter, something in quotes, or words with blanks in between.
func (p *filterParser) tag(at *attribute) []byte {
	p.count()
	var tag string
	switch {
	case p.skip("$"):
		tag = p.parameter()
	case p.skip(`"`):
		tag = p.quoted()
	default:
		tag = p.word()
		for p.err == nil && p.more() && !p.starts("|") && !p.starts("}") {
			tag += " " + p.word()
		}
	}
	if tag = at.tag(tag); tag == "" {
		p.fail("Empty tag of the field `%.128s`", at.Name)
	}
	return []byte(tag)
}

// bound reads one end of a range. If it is infinite in the direction of sign, it is nil.
func (p *filterParser) bound(sign int) (limit *float64, open bool) {
	open = p.skip("(")
	var value string
	if p.skip("$") {
		value = p.parameter()
	} else if p.more() {
		rest := p.text[p.at:]
		if end := strings.IndexAny(rest, " \t\r\n]"); end >= 0 {
			rest = rest[:end]
		}
		value = rest
		p.at += len(value)
	}
	if p.err != nil {
		return nil, false
	}
	number, err := strconv.ParseFloat(value, 64)
	switch {
	case err != nil || math.IsNaN(number) || math.IsInf(number, -sign):
		p.fail("Invalid numeric value (%.128s) at offset %d", value, p.at)
		return nil, false
	case math.IsInf(number, sign):
		return nil, open
	}
	return &number, open
}

// substring reads the text to look for: a word, something in quotes, or one of these in
// parentheses.
func (p *filterParser) substring() string {
	parenthesis := p.skip("(")
	text := ""
	switch {
	case p.skip(`"`):
		text = p.quoted()
	case p.skip("*"): // RediSearch finds what has the word in it
		text = p.value()
		p.expect("*")
	default:
		text = p.value()
	}
	if parenthesis {
		p.expect(")")
	}
	if text == "" {
		p.fail("Empty text at offset %d", p.at)
	}
	return text
}
