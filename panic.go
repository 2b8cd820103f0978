package scatter

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrGoexit is returned when the goroutine that ran a caller's code ended by runtime.Goexit, which
// testing.T.FailNow calls. There is then neither a result nor a panic to report.
var ErrGoexit = errors.New("scatter: goroutine ended by runtime.Goexit")

// PanicError is returned when a caller's code panicked on a goroutine that scatter started.
type PanicError struct {
	Value any    // the argument of panic
	Stack []byte // the goroutine's stack at the panic, as debug.Stack formats it
}

// Error returns the value as text, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("scatter: panic: %v", e.Value) }

// Unwrap returns Value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// caught returns how a caller's code ended: nil if it returned, a *PanicError if it panicked with
// r, and ErrGoexit if it did neither. It is called by the function deferred around that code:
//
//	returned := false
//	defer func() {
//		if failure := caught(returned, recover()); failure != nil {
//			err = failure
//		}
//	}()
//	err = code()
//	returned = true
//
// recover alone cannot tell a return from a Goexit: it is nil for both.
func caught(returned bool, r any) error {
	switch {
	case returned:
		return nil
	case r != nil:
		return &PanicError{Value: r, Stack: debug.Stack()}
	}
	return ErrGoexit
}
