//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scatterknn/scatter"
	"github.com/scatterknn/scatter/examples/internal/demotest"
	"github.com/stretchr/testify/require"
)

// A PGlite takes seconds to start, so these tests share three. The last ones break them.
func TestPGvector(t *testing.T) {
	s := newTestShards(t, pgvector)
	t.Run("nearest", func(t *testing.T) { testNearest(t, s) })
	t.Run("partial", func(t *testing.T) { testPartial(t, s) })
	t.Run("slow", func(t *testing.T) { testSlow(t, s) })
	t.Run("down", func(t *testing.T) { testDown(t, s) })
}

// testPartial tests that a peer is Incomplete if its index stops before it has found K rows that
// match a filter, and only then.
func testPartial(t *testing.T, s *shards) {
	// A thousand tints more are nearer to black than "white" is.
	s.exec(t, 0, `INSERT INTO colours SELECT 'tint', ARRAY[r, g, b]::vector
		FROM generate_series(0, 225, 25) r, generate_series(0, 225, 25) g, generate_series(0, 225, 25) b`)
	black, like := []float32{0, 0, 0}, "%white%"
	const k = 20
	few, all := look(black, like, k, 1, 2), look(black, like, k, 0, 1, 2)
	here := len(all) - len(few)
	require.Positive(t, here)

	s.exec(t, 0, "SET hnsw.max_scan_tuples = 1")
	resp := s.nearest(t, black, like, k)
	require.Equal(t, scatter.Incomplete, resp.Peers[0].Status)
	require.ErrorIs(t, resp.Peers[0].Err, scatter.ErrPartial)
	require.Less(t, resp.Peers[0].Hits, here)
	require.True(t, resp.Partial)
	require.Subset(t, all, resp.Hits)
	require.Subset(t, resp.Hits, few)
	for _, peer := range resp.Peers[1:] { // They have fewer than K rows that match, and have returned them all.
		require.Equal(t, scatter.Answered, peer.Status)
	}

	s.exec(t, 0, "SET hnsw.max_scan_tuples = 20000")
	resp = s.nearest(t, black, like, k)
	require.Equal(t, all, resp.Hits)
	require.False(t, resp.Partial)
	require.Equal(t, scatter.Answered, resp.Peers[0].Status)
	s.exec(t, 0, "DELETE FROM colours WHERE name = 'tint'")
}

// testSlow tests that a server that ignores cancel requests, as PGlite does, delays no answer.
func testSlow(t *testing.T, s *shards) {
	s.exec(t, 0, slowDown)
	// The deadline gets longer until the others have answered by then.
	for deadline := time.Second; ; deadline *= 2 {
		resp, err := s.ask(t.Context(), near{KNN: scatter.KNN{Vector: blue}, Like: "%"}, 6, deadline)
		require.NoError(t, err)
		require.Equal(t, scatter.TimedOut, resp.Peers[0].Status)
		if resp.PeersTimedOut == 1 {
			require.Equal(t, look(blue, "%", 6, 1, 2), resp.Hits, "from the other two")
			require.True(t, resp.Partial)
			return
		}
		require.Less(t, deadline, soon)
	}
}

// Without flags the program uses pgvector.
func TestRun(t *testing.T) {
	_, err := findPGlite(t.Context(), io.Discard)
	demotest.Needed(t, err)
	nothingLeft(t)
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-deadline", "-1s", "-like", "%green%"}, &out))
	require.Contains(t, out.String(), "with pgvector")
	require.Contains(t, out.String(), printed(blue, "%green%"))
	require.Contains(t, out.String(), "/3:5432/postgres  Answered, ")
}

// If npm fails, its output is in the error, and what it has installed is removed.
func TestNPMFails(t *testing.T) {
	_, err := findPGlite(t.Context(), io.Discard)
	demotest.Needed(t, err)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
	fake := "#!/bin/sh\necho no network\nexit 7\n"
	require.NoError(t, os.WriteFile(filepath.Join(home, "npm"), []byte(fake), 0o755))
	t.Setenv("PATH", home+string(os.PathListSeparator)+os.Getenv("PATH"))
	_, err = findPGlite(t.Context(), io.Discard)
	require.ErrorContains(t, err, "no network")
	require.ErrorContains(t, err, "exit status 7")
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Join(cache, "scatter-pgvector"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// Without programs, the error says what to install.
func TestNothingInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findPGlite(t.Context(), io.Discard)
	require.ErrorContains(t, err, "apt-get install nodejs npm")
}
