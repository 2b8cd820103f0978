// Package corpus reads the documentation of the Go standard library, which examples search.
package corpus

import (
	"context"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Symbol is one document of the corpus: an exported function, type or method and its documentation.
type Symbol struct {
	ID      string // "archive/zip.OpenReader", "net/http.(*Client).Do", "time.Duration.String"
	Doc     string // the whole doc comment
	Summary string // its first sentence
}

// CompareID compares the symbol's ID with another, as strings.Compare does.
func (s Symbol) CompareID(id string) int { return strings.Compare(s.ID, id) }

// GoRoot returns the Go installation whose source is read: the one asked for, or that of the go
// command, or the one that this program was built with.
func GoRoot(ctx context.Context, asked string) string {
	if asked != "" {
		return asked
	}
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		if root := strings.TrimSpace(string(out)); root != "" {
			return root
		}
	}
	return build.Default.GOROOT
}

// Read returns every documented exported symbol of the packages below root/src, sorted by ID.
func Read(ctx context.Context, root string) ([]Symbol, error) {
	src := filepath.Join(root, "src")
	dirs, err := packageDirs(src)
	if err != nil {
		return nil, fmt.Errorf("no Go source in GOROOT %q: want a directory with the standard library in src: %w", root, err)
	}

	found := make([][]Symbol, len(dirs)) // by package, so that the goroutines share nothing
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, dir := range dirs {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var err error
			found[i], err = readPackage(src, dir)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}

	symbols := slices.Concat(found...)
	if len(symbols) == 0 {
		return nil, fmt.Errorf("no Go source in GOROOT %q: %s holds no package with a documented exported symbol", root, src)
	}
	slices.SortFunc(symbols, func(a, b Symbol) int { return a.CompareID(b.ID) })
	return symbols, nil
}

// packageDirs lists the directories below src that may hold a public package, relative to src.
func packageDirs(src string) ([]string, error) {
	var dirs []string
	err := fs.WalkDir(os.DirFS(src), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || path == "." {
			return err
		}
		name := entry.Name()
		switch path {
		case "cmd", "builtin": // Programs, and names that no package declares.
			return fs.SkipDir
		}
		if name == "internal" || name == "vendor" || name == "testdata" || name[0] == '_' || name[0] == '.' {
			return fs.SkipDir
		}
		dirs = append(dirs, path)
		return nil
	})
	return dirs, err
}

// readPackage returns the symbols of the package in a directory. There are none without a package
// for this platform.
func readPackage(src, importPath string) ([]Symbol, error) {
	dir := filepath.Join(src, filepath.FromSlash(importPath))
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		// Another platform's file would declare the same names again.
		if match, err := build.Default.MatchFile(dir, filepath.Base(name)); err != nil || !match {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	if len(files) == 0 || files[0].Name.Name == "main" {
		return nil, nil
	}

	pkg, err := doc.NewFromFiles(fset, files, importPath)
	if err != nil {
		return nil, fmt.Errorf("package %s: %w", importPath, err)
	}
	var symbols []Symbol
	add := func(name, comment string) {
		if comment != "" {
			symbols = append(symbols, Symbol{ID: importPath + "." + name, Doc: comment, Summary: pkg.Synopsis(comment)})
		}
	}
	for _, f := range pkg.Funcs {
		add(f.Name, f.Doc)
	}
	for _, t := range pkg.Types {
		add(t.Name, t.Doc)
		for _, f := range t.Funcs { // Package doc files a constructor under its type.
			add(f.Name, f.Doc)
		}
		for _, m := range t.Methods {
			if m.Level == 0 { // It isn't promoted from an embedded type.
				add(methodName(m), m.Doc)
			}
		}
		for name, comment := range interfaceMethods(t) {
			add(t.Name+"."+name, comment)
		}
	}
	return symbols, nil
}

// methodName is Recv.Name or (*Recv).Name, without the type parameters of the receiver.
func methodName(m *doc.Func) string {
	recv, _, _ := strings.Cut(m.Recv, "[")
	if strings.HasPrefix(recv, "*") {
		recv = "(" + recv + ")"
	}
	return recv + "." + m.Name
}

// interfaceMethods returns the exported methods of an interface type, which package doc leaves in
// the declaration.
func interfaceMethods(t *doc.Type) iter.Seq2[string, string] {
	return func(yield func(name, comment string) bool) {
		for _, spec := range t.Decl.Specs {
			spec, ok := spec.(*ast.TypeSpec)
			if !ok || spec.Name.Name != t.Name {
				continue
			}
			iface, ok := spec.Type.(*ast.InterfaceType)
			if !ok {
				continue
			}
			for _, method := range iface.Methods.List {
				for _, name := range method.Names { // none for an embedded interface
					if name.IsExported() && !yield(name.Name, method.Doc.Text()) {
						return
					}
				}
			}
		}
	}
}
