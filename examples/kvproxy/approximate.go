package main

import (
	"context"
	"io"
	"regexp"
	"unicode/utf8"
)

const longestPattern = 1000 // bytes; the time of a match can grow faster than the pattern

// matcher returns a function that reports whether a regular expression matches somewhere in a text.
// If most is more than 0, the pattern is plain text, and the function reports whether some part of
// the text becomes the pattern by at most so many edits: characters changed, left out or put in. It
// may be wrong once ctx has ended.
func matcher(ctx context.Context, pattern string, most int) (func(text []byte) bool, error) {
	if len(pattern) > longestPattern {
		return nil, unanswerable("a pattern of %d bytes, must be at most %d", len(pattern), longestPattern)
	}
	if most > 0 {
		if regexp.QuoteMeta(pattern) != pattern {
			return nil, unanswerable("the pattern %q has operators, must be plain text with errors allowed", pattern)
		}
		runes := []rune(pattern)
		return func(text []byte) bool { return containsAbout(ctx, text, runes, most) }, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, unanswerable("pattern: %w", err)
	}
	return func(text []byte) bool {
		if len(text) < 1024 {
			return re.Match(text)
		}
		return re.MatchReader(&untilDone{ctx: ctx, text: text}) // slower, but can be stopped
	}, nil
}

// untilDone reads the characters of a text until ctx ends.
type untilDone struct {
	ctx  context.Context
	text []byte
	read int
}

// ReadRune implements io.RuneReader.
func (u *untilDone) ReadRune() (rune, int, error) {
	if len(u.text) == 0 || u.read%64 == 0 && u.ctx.Err() != nil {
		return 0, 0, io.EOF
	}
	u.read++
	r, size := utf8.DecodeRune(u.text)
	u.text = u.text[size:]
	return r, size, nil
}

// containsAbout reports whether some part of a text becomes the pattern by at most so many edits.
// See Sellers, "The Theory and Computation of Evolutionary Distances", J. Algorithms 1980.
//
// edits[i] is the smallest number of edits from a part that ends here to the first i characters of
// the pattern. Once it is more than most, it doesn't matter by how much, and what follows it in the
// column can only be more. So only what comes before is computed: see Ukkonen, "Finding approximate
// patterns in strings", J. Algorithms 1985.
func containsAbout(ctx context.Context, text []byte, pattern []rune, most int) bool {
	edits := make([]int, len(pattern)+1)
	for i := range edits {
		edits[i] = min(i, most+1)
	}
	last := min(most, len(pattern)) // edits[last+1:] is more than most
	for n := 0; last < len(pattern); n++ {
		if len(text) == 0 || n%64 == 0 && ctx.Err() != nil {
			return false
		}
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		diagonal := 0 // edits[i-1] one character before
		for i := 1; i <= min(last+1, len(pattern)); i++ {
			fewest := min(edits[i], edits[i-1], diagonal) + 1
			if pattern[i-1] == r {
				fewest = diagonal
			}
			diagonal, edits[i] = edits[i], min(fewest, most+1)
		}
		last = min(last+1, len(pattern))
		for edits[last] > most {
			last--
		}
	}
	return true
}
