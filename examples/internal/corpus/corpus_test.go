package corpus_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/scatterknn/scatter/examples/internal/corpus"
	"github.com/scatterknn/scatter/examples/internal/demotest"
)

// writeFiles makes a GOROOT out of files by their path in src.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, "src", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadOfRealPackages(t *testing.T) {
	symbols, err := corpus.Read(t.Context(), demotest.SmallGoRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]corpus.Symbol)
	var ids []string
	for _, s := range symbols {
		byID[s.ID] = s
		ids = append(ids, s.ID)
	}
	if !slices.IsSorted(ids) || len(byID) != len(ids) {
		t.Errorf("IDs are not sorted and unique")
	}
	for id, beginning := range map[string]string{
		"archive/zip.OpenReader":                "OpenReader will open", // a constructor, which go/doc files under its type
		"archive/zip.(*Reader).Open":            "Open opens",
		"archive/zip.FileHeader":                "FileHeader describes",
		"sort.Interface.Less":                   "Less reports", // a method of an interface
		"strings.Cut":                           "Cut slices",
		"sync/atomic.(*Pointer).CompareAndSwap": "CompareAndSwap executes", // of a generic type
		"time.Duration.Seconds":                 "Seconds returns",         // a method of a value
	} {
		if s, ok := byID[id]; !ok || !strings.HasPrefix(s.Summary, beginning) || !strings.HasPrefix(s.Doc, s.Summary[:9]) {
			t.Errorf("symbol %s = %+v, want a summary that begins with %q", id, s, beginning)
		}
	}
}

func TestReadSkips(t *testing.T) {
	root := writeFiles(t, map[string]string{
		"a/a.go": `package a
			// F is documented.
			// It is found.
			func F() {}
			func Undocumented() {}
			// unexported is not found.
			func unexported() {}
			// T is a type.
			type T struct{ embedded }
			// M is a method.
			func (*T) M() {}
			type embedded struct{}
			// Promoted isn't T's own.
			func (embedded) Promoted() {}`,
		"a/a_test.go":         "package a\n// InTest is in a test.\nfunc InTest() {}",
		"a/a_nosuchos.go":     "//go:build nosuchos\n\npackage a\n// F is for another platform.\nfunc F() {}",
		"a/internal/b/b.go":   "package b\n// F is internal.\nfunc F() {}",
		"a/testdata/c/c.go":   "package c\n// F is test data.\nfunc F() {}",
		"cmd/d/d.go":          "package d\n// F is in a command.\nfunc F() {}",
		"vendor/e/e.go":       "package e\n// F is vendored.\nfunc F() {}",
		"_f/f.go":             "package f\n// F is in a directory that the go command ignores.\nfunc F() {}",
		"g/main.go":           "package main\n// F is in a program.\nfunc F() {}",
		"h/notgo.txt":         "nothing",
		"builtin/builtin.go":  "package builtin\n// Type is documentation only.\ntype Type int",
		"i/j/generic.go":      "package j\n// G is generic.\ntype G[T any] struct{}\n// M is too.\nfunc (g *G[T]) M() {}",
		"i/iface/embedded.go": "package iface\n// I embeds.\ntype I interface {\n\terror\n\t// M is I's.\n\tM()\n\tundocumented()\n}",
	})
	symbols, err := corpus.Read(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range symbols {
		ids = append(ids, s.ID)
	}
	want := []string{"a.(*T).M", "a.F", "a.T", "i/iface.I", "i/iface.I.M", "i/j.(*G).M", "i/j.G"}
	if !slices.Equal(ids, want) {
		t.Errorf("Read found %q, want %q", ids, want)
	}
	if got, want := symbols[1].Summary, "F is documented."; got != want {
		t.Errorf("Summary = %q, want %q", got, want)
	}
}

func TestReadErrors(t *testing.T) {
	tests := []struct {
		name, root, want string
	}{
		{"no such directory", filepath.Join(t.TempDir(), "nowhere"), "want a directory with the standard library"},
		{"no package", writeFiles(t, map[string]string{"a/readme.txt": ""}), "holds no package"},
		{"broken source", writeFiles(t, map[string]string{"a/a.go": "package a\nfunc"}), "a.go:2:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := corpus.Read(t.Context(), tt.root); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Read = %v, want an error with %q", err, tt.want)
			}
		})
	}
}
