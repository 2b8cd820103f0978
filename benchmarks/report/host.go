package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// processor names the machine's, as far as the system tells.
func processor() string {
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// versions returns path and version of each of the rivals' modules.
func versions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var out []string
	for _, m := range info.Deps {
		if slices.Contains(rivals, m.Path) {
			out = append(out, m.Path+" "+m.Version)
		}
	}
	return out
}

var rivals = []string{
	"github.com/bboreham/go-loser", "github.com/grafana/dskit", "github.com/looplab/fsm", "github.com/qmuntal/stateless",
	"github.com/sourcegraph/conc", "golang.org/x/sync",
}
