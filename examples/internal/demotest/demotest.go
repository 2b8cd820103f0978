// Package demotest has what the tests of the example programs have in common.
package demotest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/scatterknn/scatter/examples/internal/corpus"
)

// Needed fails the test if err isn't nil. If err means that a server isn't installed, Needed skips
// the test instead, unless SCATTER_NO_SKIP is set, as in CI.
func Needed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("SCATTER_NO_SKIP") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SmallGoRoot makes a GOROOT that has only a few packages of the real one.
func SmallGoRoot(t *testing.T) string {
	t.Helper()
	real, small := corpus.GoRoot(t.Context(), ""), t.TempDir()
	for _, pkg := range []string{"archive/zip", "sort", "strings", "sync/atomic", "time"} {
		err := os.CopyFS(filepath.Join(small, "src", pkg), os.DirFS(filepath.Join(real, "src", pkg)))
		if err != nil {
			t.Fatal(err)
		}
	}
	return small
}
