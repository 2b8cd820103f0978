// Command report measures scatter beside its rivals, prints the ratios and whether they are what they should be, and
// writes them with charts into docs.
//
// All is measured in one run and in turns: a ratio is that of two medians of rounds in which both had their turn, so it
// depends little on what else the machine does. Times by themselves depend on it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/scatterknn/scatter/benchmarks/internal/cases"
	"github.com/scatterknn/scatter/benchmarks/internal/loopback"
)

// options are the command's flags.
type options struct {
	quick bool
	only  string
	out   string // directory; written to unless it is empty

	processes  bool   // the peers of whole queries are processes of their own
	serve      string // be such a process, with this transport,
	servePeers int    // and so many peers
}

func main() {
	log.SetFlags(0)
	var o options
	flag.BoolVar(&o.quick, "quick", false, "measure small cases, once each, to see the form of the report")
	flag.StringVar(&o.only, "only", "",
		"measure only cases whose names, such as Merge/peers=10/k=10/dups=0, match this `regexp`")
	flag.StringVar(&o.out, "out", "",
		"`directory` to write benchmarks.md and the charts to; by default ../docs, or none with -quick or -only")
	flag.StringVar(&o.serve, "serve", "", "run peers with this `transport`, until the input ends; the report calls itself so")
	flag.IntVar(&o.servePeers, "serve-peers", 1, "how many")
	flag.Parse()
	if o.serve != "" {
		if err := loopback.Serve(o.serve, o.servePeers, os.Stdout, os.Stdin); err != nil {
			log.Fatal(err)
		}
		return
	}
	o.processes = true
	if o.out == "" && !o.quick && o.only == "" {
		o.out = filepath.Join("..", "docs")
	}
	if err := run(os.Stdout, os.Stderr, o); err != nil {
		log.Fatal(err)
	}
}

// command is how the report was made.
func (o options) command() string {
	s := "go run -C benchmarks ./report"
	if o.quick {
		s += " -quick"
	}
	if o.only != "" {
		s += fmt.Sprintf(" -only '%s'", o.only)
	}
	return s
}

// run prints the report to w, and writes it to a directory if there is one.
func run(w, progress io.Writer, o options) error {
	pattern, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if o.out != "" {
		if _, err := os.Stat(o.out); err != nil { // before minutes are spent
			return fmt.Errorf("-out: %w", err)
		}
	}
	e, load := thorough, thoroughLoad
	if o.quick {
		e, load = quick, quickLoad
	}
	start := time.Now()
	tell := func(what string) { fmt.Fprintf(progress, "%4.0f s  %s\n", time.Since(start).Seconds(), what) }
	all := measureAll(cases.All(), pattern, e, tell)
	whole, err := measureEndToEnd(pattern, load, o.processes, tell)
	if err != nil {
		return err
	}
	if len(whole.Cases) > 0 {
		all = append(all, whole)
	}
	if len(all) == 0 {
		return fmt.Errorf("-only %s: there is no such case", o.only)
	}
	tell("done")
	r := report{heading(o, start, e), all, targets(), growths(claims(), all), charts(all)}
	var text bytes.Buffer
	r.print(&text)
	if _, err := w.Write(text.Bytes()); err != nil || o.out == "" {
		return err
	}
	return r.save(o.out, text.Bytes())
}

// save writes the report and its charts.
func (r report) save(dir string, text []byte) error {
	if err := os.WriteFile(filepath.Join(dir, "benchmarks.md"), text, 0o666); err != nil {
		return err
	}
	for _, c := range r.charts {
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.figure.SVG()), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// heading tells where, when and how it was measured.
func heading(o options, start time.Time, e effort) []string {
	return []string{
		fmt.Sprintf("%s, %d cores, %s %s/%s, %s. Made by", processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS,
			runtime.GOARCH, start.UTC().Format(time.DateOnly)),
		"",
		"```sh",
		o.command(),
		"```",
		"",
		fmt.Sprintf("from %s, and Go's own container/heap, encoding/json and encoding/gob.", strings.Join(versions(), ", ")),
		"",
		fmt.Sprintf("Each figure is a median of %d rounds of %v, in which all that are compared take turns, each after a"+
			" garbage collection. A cell has the time of one operation, how many times it is that of the first column, and how"+
			" many allocations it makes. A bold ratio is that of a rival which is faster.", e.rounds, e.slice),
	}
}
