package scatter

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPanicError(t *testing.T) {
	require.Equal(t, "scatter: panic: 7", (&PanicError{Value: 7}).Error())
	require.NoError(t, errors.Unwrap(&PanicError{Value: 7}))
	require.Equal(t, errBoom, errors.Unwrap(&PanicError{Value: errBoom}))
}

// Rule 22: no end of a caller's code goes unnoticed.
func TestCaught(t *testing.T) {
	run := func(code func()) (err error) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			returned := false
			defer func() { err = caught(returned, recover()) }()
			code()
			returned = true
		}()
		<-ended
		return err
	}
	require.NoError(t, run(func() {}))
	require.Equal(t, ErrGoexit, run(runtime.Goexit))

	var p *PanicError
	require.ErrorAs(t, run(func() { panic(nil) }), &p)
	require.IsType(t, new(runtime.PanicNilError), p.Value)
	require.ErrorAs(t, run(func() { panic("why") }), &p)
	require.Equal(t, "why", p.Value)
	require.True(t, strings.HasPrefix(string(p.Stack), "goroutine "))
}
