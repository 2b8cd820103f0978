package scatter

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const importer = `package main

import (
	"context"
	"fmt"

	"github.com/scatterknn/scatter"
)

func probe(_ context.Context, p scatter.PeerID, _ *scatter.Request) ([]scatter.Hit[string], error) {
	return []scatter.Hit[string]{{ID: "best of " + string(p), Score: float32(len(p))}}, nil
}

func main() {
	req := &scatter.Request{Query: scatter.KNN{}, K: 2}
	resp, err := scatter.Broadcast(context.Background(), req, []scatter.PeerID{"green", "red"}, probe, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.Hits, resp.Partial)
}
`

// importerModules are the modules that a program which imports scatter is built from.
var importerModules = []string{
	"example.com/importer", "github.com/scatterknn/scatter", "go.uber.org/multierr", "go.uber.org/zap", "golang.org/x/sync",
}

// importerGraph are the other modules that "go mod graph" names: what the tests of scatter, zap and
// multierr need. Nothing of them is built. All but testify and go.yaml.in are there because of zap.
var importerGraph = []string{
	"github.com/davecgh/go-spew", "github.com/kr/text", "github.com/pmezard/go-difflib", "github.com/stretchr/testify",
	"go.uber.org/goleak", "go.yaml.in/yaml/v3", "gopkg.in/yaml.v3",
}

// A program that imports scatter builds without network from what scatter's own tests need, and
// depends on nothing that it doesn't use.
func TestImporter(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	root, err := os.Getwd()
	require.NoError(t, err)
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(importer), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	goCommand := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "go %s: %s", strings.Join(args, " "), &stderr)
		return string(out)
	}

	goCommand("mod", "init", "example.com/importer")
	goCommand("mod", "edit", "-require=github.com/scatterknn/scatter@v0.0.0",
		"-replace=github.com/scatterknn/scatter="+root)
	require.Equal(t, "[{best of red 3} {best of green 5}] false\n", goCommand("run", "."))

	built := strings.Fields(goCommand("list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."))
	slices.Sort(built)
	require.Equal(t, importerModules, slices.Compact(built))

	var graph []string
	for module := range strings.FieldsSeq(goCommand("mod", "graph")) {
		path, _, _ := strings.Cut(module, "@")
		if path != "go" && path != "toolchain" && !slices.Contains(graph, path) {
			graph = append(graph, path)
		}
	}
	require.ElementsMatch(t, slices.Concat(importerModules, importerGraph), graph)
}
