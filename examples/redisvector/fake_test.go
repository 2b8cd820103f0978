//go:build unix

package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"github.com/tidwall/redcon"
)

// fake stands for a Redis 8 server where only an older one can be installed, as on Debian. It knows
// VADD, and VSIM with WITHSCORES, for one key and vectors in binary form. It compares with all
// vectors, where Redis searches a graph. Its replies have the forms of Redis 8: in RESP2 an array
// of names and scores in turn, in RESP3 a map from names to doubles. So it tests the probe, and
// tells nothing of Redis.
type fake struct {
	mu      sync.Mutex
	vectors map[string][]float32
	vsims   int           // how many times it was asked
	hung    chan struct{} // if not nil, VSIM waits until it is closed
}

// startFakes connects a cluster to fakes, which stop when the test ends.
func startFakes(t *testing.T, c *cluster, protocol int) []*fake {
	t.Helper()
	var fakes []*fake
	for range copies * (len(regions) + 1) {
		f := &fake{vectors: make(map[string][]float32)}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := redcon.NewServer("", f.serve, nil, nil)
		ended := make(chan error)
		go func() { ended <- server.Serve(listener) }()
		t.Cleanup(func() {
			require.NoError(t, listener.Close())
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				require.NoError(t, err)
			}
		})
		fakes = append(fakes, f)
		c.connect(&redis.Options{Addr: listener.Addr().String(), Protocol: protocol})
	}
	return fakes
}

func (f *fake) serve(conn redcon.Conn, cmd redcon.Command) {
	args := make([]string, len(cmd.Args))
	for i, a := range cmd.Args {
		args[i] = string(a)
	}
	switch strings.ToUpper(args[0]) {
	case "HELLO":
		hello(conn, args[1:])
	case "VADD":
		f.vadd(conn, args[1:])
	case "VSIM":
		f.vsim(conn, args[1:])
	default:
		conn.WriteError("ERR unknown command '" + args[0] + "', with args beginning with: ")
	}
}

func hello(conn redcon.Conn, args []string) {
	resp3 := args[0] == "3"
	conn.SetContext(resp3)
	if resp3 {
		conn.WriteRaw([]byte("%2\r\n"))
	} else {
		conn.WriteArray(4)
	}
	conn.WriteBulkString("version")
	conn.WriteBulkString("8.0.0")
	conn.WriteBulkString("proto")
	n, _ := strconv.Atoi(args[0])
	conn.WriteInt(n)
}

func isRESP3(conn redcon.Conn) bool {
	resp3, _ := conn.Context().(bool)
	return resp3
}

// vadd is VADD key FP32 vector element NOQUANT.
func (f *fake) vadd(conn redcon.Conn, args []string) {
	if len(args) != 5 || args[1] != "FP32" || !strings.EqualFold(args[4], "NOQUANT") {
		conn.WriteError("ERR the fake doesn't know this form of VADD")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, old := f.vectors[args[3]]
	f.vectors[args[3]] = unit(args[2])
	switch {
	case isRESP3(conn) && old:
		conn.WriteRaw([]byte("#f\r\n"))
	case isRESP3(conn):
		conn.WriteRaw([]byte("#t\r\n"))
	case old:
		conn.WriteInt(0)
	default:
		conn.WriteInt(1)
	}
}

// vsim is VSIM key FP32 vector WITHSCORES COUNT n.
func (f *fake) vsim(conn redcon.Conn, args []string) {
	if len(args) != 6 || args[1] != "FP32" || !strings.EqualFold(args[3]+args[4], "WITHSCORESCOUNT") {
		conn.WriteError("ERR the fake doesn't know this form of VSIM")
		return
	}
	if args[0] != "cities" {
		conn.WriteArray(0) // Also in RESP3 this isn't an empty map.
		return
	}
	f.mu.Lock()
	f.vsims++
	hung := f.hung
	f.mu.Unlock()
	if hung != nil {
		<-hung
	}
	count, err := strconv.Atoi(args[5])
	if err != nil || count <= 0 {
		conn.WriteError("ERR invalid COUNT")
		return
	}
	type pair struct {
		name  string
		score float64
	}
	var pairs []pair
	query := unit(args[2])
	f.mu.Lock()
	for name, vector := range f.vectors {
		var dot float32
		for i, x := range vector {
			dot += x * query[i]
		}
		pairs = append(pairs, pair{name, 1 - float64(1-dot)/2})
	}
	f.mu.Unlock()
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
	})
	pairs = pairs[:min(count, len(pairs))]
	if isRESP3(conn) {
		conn.WriteRaw(fmt.Appendf(nil, "%%%d\r\n", len(pairs)))
	} else {
		conn.WriteArray(2 * len(pairs))
	}
	for _, p := range pairs {
		conn.WriteBulkString(p.name)
		score := strconv.FormatFloat(p.score, 'g', 17, 64)
		if isRESP3(conn) {
			conn.WriteRaw([]byte("," + score + "\r\n"))
		} else {
			conn.WriteBulkString(score)
		}
	}
}

// unit returns a vector of length 1 in the direction of one in binary form.
func unit(fp32 string) []float32 {
	vector := make([]float32, len(fp32)/4)
	var square float64
	for i := range vector {
		vector[i] = math.Float32frombits(binary.LittleEndian.Uint32([]byte(fp32[4*i:])))
		square += float64(vector[i]) * float64(vector[i])
	}
	for i := range vector {
		vector[i] /= float32(math.Sqrt(square))
	}
	return vector
}
