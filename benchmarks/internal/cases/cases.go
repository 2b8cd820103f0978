// Package cases holds what is measured: every operation, on every input, done by scatter and by its rivals. The Go
// benchmarks of this package and the report command measure the same cases.
//
// Inputs come from fixed seeds and are the same for all implementations. A test checks that all of them give the same
// answers: one that does other work is no rival.
package cases

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Group is one kind of operation, on inputs of several sizes, by several implementations.
type Group struct {
	Name  string // as in BenchmarkName
	Title string
	About string // what is done, and what one must know to read the figures
	Impls []Impl // the first is the one that the others are compared with
	Cases []Case

	Growth bool // it shows how the times of another group grow, over sizes that double
}

// Impl is one way to do the operation of a Group.
type Impl struct {
	Name  string // as in impl=name
	Label string
	Ours  bool
	Lacks string // what it leaves out that scatter does; empty if it is Ours, or leaves out nothing
}

// Case is one input.
type Case struct {
	Params []Param
	Unit   string // what is counted, if one run does several: events, say
	Units  int    // and how many of them; 1 if Unit is empty

	// Setup makes the input, and returns for each of the Group's Impls a function that does the operation once, or nil for
	// one that cannot. Each call is good by itself, so that the next sees the same input; it panics if the operation
	// fails.
	Setup func() []func()
}

// Param is a parameter of an input, such as peers=100.
type Param struct {
	Name  string
	Value any
}

// Name is that of a sub-benchmark, such as peers=100/k=10.
func (c Case) Name() string {
	var parts []string
	for _, p := range c.Params {
		parts = append(parts, fmt.Sprintf("%s=%v", p.Name, p.Value))
	}
	return strings.Join(parts, "/")
}

// Int is the value of a whole number among the Params.
func (c Case) Int(name string) int {
	for _, p := range c.Params {
		if n, ok := p.Value.(int); ok && p.Name == name {
			return n
		}
	}
	panic("cases: no number " + name + " in " + c.Name())
}

// Size is the product of all numbers among the Params: roughly, how large the input is.
func (c Case) Size() int {
	size := 1
	for _, p := range c.Params {
		if n, ok := p.Value.(int); ok {
			size *= max(n, 1)
		}
	}
	return size
}

// PerRun is how many units one run does.
func (c Case) PerRun() int { return cmp.Or(c.Units, 1) }

// Impl returns the place of an implementation among the Impls.
func (g Group) Impl(name string) int {
	i := slices.IndexFunc(g.Impls, func(impl Impl) bool { return impl.Name == name })
	if i < 0 {
		panic("cases: no implementation " + name + " in " + g.Name)
	}
	return i
}

// All returns all groups, in the order of the report.
func All() []Group {
	return []Group{
		Merge(), MergeU64(), MergeByID(), MergeEmbedded(), MergeOverPeers(), MergeOverK(),
		Fanout(), FanoutByHand(), FanoutOverPeers(), FanoutWaiting(), FanoutOneConnection(), Search(),
		Machine(), MachineBurst(),
		Ring(), Cover(), Codec(),
	}
}

// doubling returns from, and twice that, and so on up to to.
func doubling(from, to int) []int {
	var sizes []int
	for n := from; n <= to; n *= 2 {
		sizes = append(sizes, n)
	}
	return sizes
}

// must panics if an operation that is measured went wrong: then there is nothing to measure.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
