package scatter

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// MarshalJSON returns r as JSON: see [Response].
func (r Response[H]) MarshalJSON() ([]byte, error) {
	hits := make([]json.RawMessage, len(r.Hits))
	for i := range r.Hits {
		var err error
		if hits[i], err = marshalHit(&r.Hits[i]); err != nil {
			return nil, fmt.Errorf("scatter: Response.Hits[%d]: %w", i, err)
		}
	}
	for i, m := range r.Missing {
		for j, holder := range m.Holders {
			if err := checkUTF8(string(holder), "Response.Missing[%d].Holders[%d]", i, j); err != nil {
				return nil, err
			}
		}
	}
	if r.Peers == nil {
		r.Peers = []PeerReport{} // [], as for the hits
	}
	type plain Response[H] // without the methods
	return json.Marshal(struct {
		Hits []json.RawMessage `json:"hits"` // hides that of plain
		plain
		Elapsed durationJSON `json:"elapsed"` // likewise
	}{hits, plain(r), durationJSON(r.Elapsed)})
}

// UnmarshalJSON sets r to what b says, as a whole: see [Response]. Members that it doesn't know are
// ignored. If it fails, it leaves r unchanged.
func (r *Response[H]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" { // as every UnmarshalJSON does
		return nil
	}
	type plain Response[H]
	var form struct {
		Hits []json.RawMessage `json:"hits"`
		plain
		Elapsed durationJSON `json:"elapsed"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return fmt.Errorf("scatter: Response: %w", err)
	}
	read := Response[H](form.plain)
	read.Elapsed = time.Duration(form.Elapsed)
	if len(read.Peers) == 0 {
		read.Peers = nil
	}
	if len(read.Missing) == 0 {
		read.Missing = nil
	}
	if len(form.Hits) > 0 {
		read.Hits = make([]H, len(form.Hits))
	}
	scored := hasScoreMember[H]()
	for i, hit := range form.Hits {
		if err := unmarshalHit(hit, &read.Hits[i], scored); err != nil {
			return fmt.Errorf("scatter: Response.Hits[%d]: %w", i, err)
		}
	}
	*r = read
	return nil
}

type (
	plainReport PeerReport // without the methods

	// reportJSON is the form of a PeerReport in JSON. Its own fields hide those of the PeerReport.
	reportJSON struct {
		plainReport
		Err     *string      `json:"err,omitempty"`
		Elapsed durationJSON `json:"elapsed"`
	}
)

// MarshalJSON returns p as JSON: see [PeerReport].
func (p PeerReport) MarshalJSON() ([]byte, error) {
	if err := checkUTF8(string(p.Peer), "PeerReport.Peer"); err != nil {
		return nil, err
	}
	form := reportJSON{plainReport: plainReport(p), Elapsed: durationJSON(p.Elapsed)}
	if p.Err != nil {
		text := p.Err.Error()
		form.Err = &text
	}
	return json.Marshal(form)
}

// UnmarshalJSON sets p to what b says, as a whole: see [PeerReport]. If it fails, it leaves p
// unchanged.
func (p *PeerReport) UnmarshalJSON(b []byte) error {
	if string(b) == "null" { // as every UnmarshalJSON does
		return nil
	}
	var form reportJSON
	if err := json.Unmarshal(b, &form); err != nil {
		return err
	}
	*p = PeerReport(form.plainReport)
	p.Elapsed = time.Duration(form.Elapsed)
	if form.Err != nil {
		p.Err = errorOf(*form.Err)
	}
	return nil
}

// errorOf returns an error of the given text: the one that callers compare with, if it is that
// one's.
func errorOf(text string) error {
	for _, known := range []error{ErrEnough, context.DeadlineExceeded, context.Canceled} {
		if text == known.Error() {
			return known
		}
	}
	return errors.New(text)
}

// durationJSON is a duration that is text in JSON, as time.ParseDuration reads it.
type durationJSON time.Duration

func (d durationJSON) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *durationJSON) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("scatter: Elapsed is %.60q, must be a duration such as %q", text, "1.5ms")
	}
	*d = durationJSON(parsed)
	return nil
}

// hitParts is implemented by *Hit, and so by pointers to structs that embed one.
type hitParts interface {
	parts() (score *float32, id any)
}

func (h *Hit[ID]) parts() (score *float32, id any) {
	if h == nil { // embedded by pointer
		return nil, nil
	}
	return &h.Score, h.ID
}

// partsOf returns the score and the ID of a hit, and nil if there is none, or the hit's type makes
// JSON of itself.
func partsOf[H any](hit *H) (score *float32, id any) {
	var parts hitParts
	for _, form := range []any{hit, *hit} { // H is a struct or a pointer to one
		switch form.(type) {
		case json.Marshaler, json.Unmarshaler, encoding.TextMarshaler, encoding.TextUnmarshaler:
			return nil, nil
		}
		if p, ok := form.(hitParts); ok && !reflect.ValueOf(form).IsZero() {
			parts = p
		}
	}
	if parts == nil {
		return nil, nil
	}
	return parts.parts()
}

// hasScoreMember reports whether the member "score" of an H in JSON is the Score of its Hit. It
// isn't if the Hit is in an object of its own, or has its Score hidden by another.
func hasScoreMember[H any]() bool {
	var hit H
	if json.Unmarshal([]byte(`{"score":1}`), &hit) != nil {
		return false
	}
	score, _ := partsOf(&hit)
	return score != nil && *score == 1
}

// marshalHit returns a hit as JSON. What encoding/json can't write is the exception, so it gets a
// second try, without the score.
func marshalHit[H any](hit *H) (json.RawMessage, error) {
	score, id := partsOf(hit)
	if score == nil {
		return json.Marshal(hit)
	}
	if id := reflect.ValueOf(id); id.Kind() == reflect.String && !utf8.ValidString(id.String()) {
		return nil, fmt.Errorf("the ID is %.60q, must be UTF-8 to be JSON", id.String())
	}
	text := scoreText(*score)
	if text == "" {
		return json.Marshal(hit)
	}
	finite := shallowCopy(hit)
	copied, _ := partsOf(finite)
	if copied == score || !hasScoreMember[H]() {
		return nil, fmt.Errorf("the Score is %v, which a %T can't have in JSON: embed the Hit itself, without a tag",
			*score, *hit)
	}
	*copied = 0
	b, err := json.Marshal(finite)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, err
	}
	members["score"] = json.RawMessage(text)
	return json.Marshal(members)
}

// shallowCopy copies a struct, or a pointer with the struct that it points to.
func shallowCopy[H any](hit *H) *H {
	copied := *hit
	if v := reflect.ValueOf(&copied).Elem(); v.Kind() == reflect.Pointer {
		to := reflect.New(v.Type().Elem())
		to.Elem().Set(v.Elem())
		v.Set(to)
	}
	return &copied
}

// scoreText returns the JSON of a score that encoding/json can't write, and "" for any other.
func scoreText(score float32) string {
	switch x := float64(score); {
	case math.IsNaN(x):
		return "null"
	case math.IsInf(x, +1):
		return `"+Inf"`
	case math.IsInf(x, -1):
		return `"-Inf"`
	}
	return ""
}

// unmarshalHit is the inverse of marshalHit. scored is what hasScoreMember says.
func unmarshalHit[H any](b []byte, hit *H, scored bool) error {
	var head struct {
		Score json.RawMessage `json:"score"`
	}
	if !scored || json.Unmarshal(b, &head) != nil {
		return json.Unmarshal(b, hit)
	}
	var score float64
	switch string(head.Score) {
	case "null":
		score = math.NaN()
	case `"+Inf"`:
		score = math.Inf(+1)
	case `"-Inf"`:
		score = math.Inf(-1)
	default:
		return json.Unmarshal(b, hit)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	// encoding/json takes the names of members in any case.
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return strings.EqualFold(name, "score") })
	members["score"] = json.RawMessage("0") // so that there is a Hit, also if it is embedded by pointer
	b, err := json.Marshal(members)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, hit); err != nil {
		return err
	}
	p, _ := partsOf(hit)
	*p = float32(score)
	return nil
}
