package main

import (
	"database/sql"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"
)

// holdBack keeps a node's index from applying anything until release is called: it holds the lock
// that a write transaction needs.
func holdBack(t *testing.T, n *node) (release func()) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(n.cfg.data, "index.db")+"?_pragma=busy_timeout(30000)")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec("BEGIN IMMEDIATE")
	require.NoError(t, err)
	var once sync.Once
	release = func() { once.Do(func() { require.NoError(t, db.Close()) }) }
	t.Cleanup(release)
	return release
}
