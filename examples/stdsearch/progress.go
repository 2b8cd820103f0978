package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress is a bar that shows how much of some work is done. It shows nothing unless it writes to
// a terminal.
type progress struct {
	out   io.Writer // nil if there is no terminal
	label string
	total int

	mu    sync.Mutex // guards what is below
	done  int
	drawn time.Time
}

func newProgress(w io.Writer, label string, total int) *progress {
	p := &progress{label: label, total: total}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.out = w
	}
	return p
}

// step counts one more piece of work as done. It is safe for concurrent use.
func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.out == nil || time.Since(p.drawn) < 50*time.Millisecond {
		return
	}
	p.drawn = time.Now()
	const width = 40
	filled := width * p.done / p.total
	fmt.Fprintf(p.out, "\r%s [%s%s] %d of %d ", p.label,
		strings.Repeat("=", filled), strings.Repeat(" ", width-filled), p.done, p.total)
}

// clear removes the bar from the terminal.
func (p *progress) clear() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
