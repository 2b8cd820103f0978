// Command tail simulates queries to clusters whose peers are slow now and then, by several
// strategies, and prints how long the queries take, how many probes they cost and what their
// answers cover. It also draws charts.
//
// There are two settings. In the first each reply may be slow, whoever gives it. In the second
// peers have queues and slow spells, and several coordinators load them.
//
// The queries are real ones, of a [scatter.Searcher] that is stepped by
// [scatter.Searcher.Coordinator] in simulated time. Nothing sleeps and nothing is concurrent
// within a simulation, so the same seed gives the same figures.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync"
)

// options are the command's flags.
type options struct {
	seed              uint64
	seeds             int
	queries, underway int
	only              int
	out               string
}

func main() {
	log.SetFlags(0)
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the simulations; the first of the seeds in the second setting")
	flag.IntVar(&o.seeds, "seeds", 5, "how many seeds the second setting takes")
	flag.IntVar(&o.queries, "queries", 10_000, "queries to each cluster of the first setting; a fifth to those of 1000 peers")
	flag.IntVar(&o.underway, "load-queries", 20_000, "queries for each seed in the second setting")
	flag.IntVar(&o.only, "setting", 0, "simulate this setting alone; 0 means both")
	flag.StringVar(&o.out, "out", "../docs", "`directory` to draw the charts in; none if empty")
	flag.Parse()
	if err := run(os.Stdout, o); err != nil {
		log.Fatal(err)
	}
}

func run(w io.Writer, o options) error {
	if o.queries < 1 || o.underway < 1 || o.seeds < 1 {
		return fmt.Errorf("-queries is %d, -load-queries %d, -seeds %d, must be at least 1", o.queries, o.underway, o.seeds)
	}
	if o.only != 2 {
		if err := runSlow(w, o); err != nil {
			return err
		}
	}
	if o.only != 1 {
		return runLoads(w, o)
	}
	return nil
}

// settings are the rows of the first setting: each model with clusters of each size.
func settings() []setting {
	var all []setting
	for _, m := range models {
		for _, peers := range []int{10, 100, 1000} {
			for replicas := 1; replicas <= 3; replicas++ {
				all = append(all, setting{m, peers, replicas, 1})
			}
		}
		all = append(all, setting{m, 100, 3, 16})
	}
	return all
}

// charted reports whether a setting is in the chart.
func charted(s setting) bool { return s.peers == 100 && s.replicas == 3 && s.tokens == 1 }

// runSlow simulates the first setting.
func runSlow(w io.Writer, o options) error {
	all := settings()
	results, errs := make([][]result, len(all)), make([]error, len(all))
	count := func(s setting) int {
		if s.peers == 1000 {
			return max(o.queries/5, 1)
		}
		return o.queries
	}
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { results[i], errs[i] = simulate(newCluster(s, o.seed), count(s)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprint(w, "# Each reply may be slow\n\n")
	var panels []panel
	for i, s := range all {
		printTable(w, s, count(s), results[i])
		if charted(s) {
			panels = append(panels, panel{s.model.name, results[i]})
		}
	}
	return o.write("tail.svg", slowChart(panels))
}

// runLoads simulates the second setting.
func runLoads(w io.Writer, o options) error {
	seeds := make([]uint64, o.seeds)
	for i := range seeds {
		seeds[i] = o.seed + uint64(i)
	}
	fmt.Fprint(w, "# Peers with queues\n\n")
	fmt.Fprintf(w, "%d shards x %d peers, %d coordinators, %d queries for each of the seeds %d to %d.\n\n", shards,
		copies, clients, o.underway, seeds[0], seeds[len(seeds)-1])
	var panels []panel
	for _, bad := range []bool{false, true} {
		for _, load := range loadsSimulated {
			if bad && load*copies/(copies-1) > 1 { // more than the peers left in a bad one's shard can carry
				continue
			}
			results, err := simulateLoads(load, bad, o.underway, seeds)
			if err != nil {
				return err
			}
			printLoads(w, load, bad, results)
			if !bad {
				p := panel{title: fmt.Sprintf("load %.0f %%", 100*load)}
				for _, r := range results {
					p.results = append(p.results, r.result)
				}
				panels = append(panels, p)
			}
		}
	}
	return o.write("tail-load.svg", loadChart(panels))
}

func (o options) write(name, svg string) error {
	if o.out == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(o.out, name), []byte(svg), 0o666)
}
