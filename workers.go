package scatter

import "sync"

// workers run the probes of one query. A worker is a goroutine that takes a task, runs it, and
// takes the next. While tasks wait, one more worker than those that run tasks is on its way. So
// there are as many goroutines as probes wait at the same time (rule 5), and a probe that doesn't
// wait costs none of its own: that halves the time of a Broadcast to peers that answer at once. To
// do without workers, start a goroutine for each task in add.
type workers[T any] struct {
	host workerHost[T]

	mu     sync.Mutex
	tasks  []T  // guarded by mu
	coming bool // guarded by mu: a worker is on its way to take a task
}

// workerHost is what workers work for.
type workerHost[T any] interface {
	startWorker() // starts a goroutine that calls work
	runTask(T)    // may end the goroutine
}

// init makes zero workers ready, with room for n tasks.
func (w *workers[T]) init(host workerHost[T], n int) {
	w.host, w.tasks = host, make([]T, 0, n)
}

// add gives a task to a worker.
func (w *workers[T]) add(task T) {
	w.mu.Lock()
	w.tasks = append(w.tasks, task)
	start := !w.coming
	w.coming = true
	w.mu.Unlock()
	if start {
		w.host.startWorker()
	}
}

// work is what a worker does.
func (w *workers[T]) work() {
	task, ok := w.take(true)
	for ok {
		w.host.runTask(task)
		task, ok = w.take(false)
	}
}

// take takes a task, and starts another worker if there are more and none is on its way. arrived
// means that the worker has just been started.
func (w *workers[T]) take(arrived bool) (task T, ok bool) {
	w.mu.Lock()
	if arrived {
		w.coming = false
	}
	start := len(w.tasks) > 1 && !w.coming
	w.coming = w.coming || start
	if ok = len(w.tasks) > 0; ok {
		var none T
		task, w.tasks[0] = w.tasks[0], none
		w.tasks = w.tasks[1:]
	}
	w.mu.Unlock()
	if start {
		w.host.startWorker()
	}
	return task, ok
}
