package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/benchmarks/internal/cases"
	"github.com/scatterknn/scatter/benchmarks/internal/loopback"
)

// endToEnd is the group of whole queries over real transports.
func endToEnd() cases.Group {
	g := cases.Group{
		Name:  "EndToEnd",
		Title: "Whole queries over loopback",
		About: "10 hits of each peer, and the 10 best of all. The peers are another process on this machine. **tcp** is a" +
			" protocol of FTQ1 and FTR1 payloads over pooled connections, **http** is net/http and JSON. The probe is the same" +
			" for all. **By hand** is an errgroup with a `context.WithTimeout` for each peer and a sort of all hits." +
			" **DoUntilQuorum** is dskit's, with a quorum of all peers and the same sort. CPU time is that of the process that" +
			" asks. p99 is of queries that come at random times, at 60 % of what the slowest of the three can carry.",
		Impls: []cases.Impl{
			{Name: "scatter", Label: "Broadcast", Ours: true},
			{Name: "hand", Label: "by hand", Lacks: "waits for a probe that ignores its context, no panic contained, no ledger"},
			{Name: "quorum", Label: "DoUntilQuorum", Lacks: "one deadline for all, fails if one peer does, no ledger"},
		},
	}
	for _, transport := range loopback.Transports() {
		for _, n := range []int{1, 3, 10, 100} {
			g.Cases = append(g.Cases, cases.Case{Params: []cases.Param{
				{Name: "transport", Value: transport.Name}, {Name: "peers", Value: n},
			}})
		}
	}
	return g
}

// contenders are in the order of the Impls.
var contenders = []loopback.Contender{loopback.ByBroadcast, loopback.ByHand, loopback.ByQuorum}

// What is measured at once, and how busy the contenders are under load.
const (
	loadShare   = 0.6
	loadCallers = 8 // callers at once when it is measured what a contender can carry
)

// loadEffort is how much time whole queries may take.
type loadEffort struct {
	rounds     int
	slice      time.Duration // for each contender in each round
	loadRounds int
	load       time.Duration // likewise
	largest    int           // peers; 0: any
}

var (
	thoroughLoad = loadEffort{rounds: 15, slice: 60 * time.Millisecond, loadRounds: 5, load: 500 * time.Millisecond}
	quickLoad    = loadEffort{rounds: 1, slice: time.Millisecond, loadRounds: 1, load: 10 * time.Millisecond, largest: 3}
)

// measureEndToEnd measures the cases that match.
func measureEndToEnd(only *regexp.Regexp, e loadEffort, processes bool, tell func(string)) (measurement, error) {
	m := measurement{Group: endToEnd()}
	all := m.Cases
	m.Cases = nil
	for _, transport := range loopback.Transports() {
		var matching []cases.Case
		most := 0
		for _, c := range all {
			n := c.Int("peers")
			if c.Params[0].Value == transport.Name && only.MatchString(m.Name+"/"+c.Name()) && (e.largest == 0 || n <= e.largest) {
				matching, most = append(matching, c), max(most, n)
			}
		}
		if len(matching) == 0 {
			continue
		}
		tell(m.Name + ", " + transport.Name)
		probe, stop, err := startPeers(transport, most, processes)
		if err != nil {
			return m, err
		}
		for _, c := range matching {
			figures, err := e.measure(loopback.PeerNames(c.Int("peers")), probe)
			if err != nil {
				return m, errors.Join(fmt.Errorf("%s: %w", c.Name(), err), stop())
			}
			m.Cases, m.figures = append(m.Cases, c), append(m.figures, figures)
		}
		if err := stop(); err != nil {
			return m, err
		}
	}
	return m, nil
}

// startPeers runs peers, in another process or in this one.
func startPeers(t loopback.Transport, n int, processes bool) (scatter.Probe[loopback.Hit], func() error, error) {
	var addrs io.Reader
	var end io.Closer
	var wait func() error
	if processes {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		cmd := exec.Command(self, "-serve", t.Name, "-serve-peers", strconv.Itoa(n))
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			return nil, nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		addrs, end, wait = out, in, cmd.Wait
	} else {
		r, w := io.Pipe()
		stop, closer := io.Pipe()
		served := make(chan error, 1)
		go func() {
			err := loopback.Serve(t.Name, n, w, stop)
			w.CloseWithError(err) // or Dial would wait for addresses
			served <- err
		}()
		addrs, end, wait = r, closer, func() error { return <-served }
	}
	probe, idle, err := t.Dial(n, addrs)
	if err != nil {
		return nil, nil, errors.Join(err, end.Close(), wait())
	}
	return probe, func() error { return errors.Join(idle.Close(), end.Close(), wait()) }, nil
}

// measure measures all contenders in turns.
func (e loadEffort) measure(peers []scatter.PeerID, probe scatter.Probe[loopback.Hit]) (figures []figure, err error) {
	var failure error
	var once sync.Once
	runs := make([]func(), len(contenders))
	for i, ask := range contenders {
		runs[i] = func() {
			if _, err := ask(context.Background(), peers, probe); err != nil {
				once.Do(func() { failure = fmt.Errorf("%s: %w", endToEnd().Impls[i].Name, err) })
			}
		}
	}
	times := make([]int, len(runs))
	elapsed, cpu, carried := make([][]float64, len(runs)), make([][]float64, len(runs)), make([][]float64, len(runs))
	for i, run := range runs {
		times[i] = calibrate(run, e.slice)
	}
	for round := range e.rounds {
		for turn := range runs {
			i := (turn + round) % len(runs)
			settle(runs[i], times[i])
			before := cpuTime()
			took := repeat(runs[i], times[i])
			elapsed[i] = append(elapsed[i], float64(took)/float64(times[i]))
			cpu[i] = append(cpu[i], float64(cpuTime()-before)/float64(times[i]))
		}
	}
	for range e.loadRounds {
		for i, run := range runs {
			runtime.GC()
			carried[i] = append(carried[i], throughput(run, e.load/4))
		}
	}
	rate := loadShare * median(carried[0])
	for _, c := range carried {
		rate = min(rate, loadShare*median(c))
	}
	latencies := make([][]time.Duration, len(runs))
	for round := range e.loadRounds {
		for turn := range runs {
			i := (turn + round) % len(runs)
			runtime.GC()
			latencies[i] = append(latencies[i], underLoad(runs[i], rate, e.load, uint64(round))...)
		}
	}
	for i, run := range runs {
		slices.Sort(latencies[i])
		f := figure{ns: median(elapsed[i]), allocs: float64(allocations(run, times[i])), cpu: median(cpu[i])}
		if n := len(latencies[i]); n > 0 {
			f.p99 = float64(latencies[i][(n-1)*99/100])
		}
		figures = append(figures, f)
	}
	return figures, failure
}

// throughput returns how many runs a second several callers make.
func throughput(run func(), d time.Duration) float64 {
	end := time.Now().Add(d)
	counts := make([]int, loadCallers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range counts {
		wg.Go(func() {
			for time.Now().Before(end) {
				run()
				counts[i]++
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / time.Since(start).Seconds()
}

// underLoad starts runs at random times, the same for the same seed, and returns how long they
// took. A run's time counts from when it was started: timers are late by up to a millisecond.
func underLoad(run func(), rate float64, d time.Duration, seed uint64) []time.Duration {
	r := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	var latencies []time.Duration
	var wg sync.WaitGroup
	begin := time.Now()
	for due := time.Duration(0); due < d; due += time.Duration(r.ExpFloat64() / rate * float64(time.Second)) {
		time.Sleep(time.Until(begin.Add(due)))
		start := time.Now()
		wg.Go(func() {
			run()
			took := time.Since(start)
			mu.Lock()
			latencies = append(latencies, took)
			mu.Unlock()
		})
	}
	wg.Wait()
	return latencies
}

// printLoad prints CPU time and p99, which only whole queries have.
func (m measurement) printLoad(w io.Writer) {
	m.printTable(w, "CPU time; p99 at 60 % load", func(i, j int, f figure) string {
		if first := m.figures[i][0]; j > 0 && first.cpu > 0 && first.p99 > 0 {
			return fmt.Sprintf("%s, %s×; %s, %s×",
				duration(f.cpu), number(f.cpu/first.cpu), duration(f.p99), number(f.p99/first.p99))
		}
		return duration(f.cpu) + "; " + duration(f.p99)
	})
}
