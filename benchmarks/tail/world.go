package main

import (
	"container/heap"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/scatterknn/scatter"
)

// What the peers of the second setting are.
const (
	shards, copies = 10, 3
	workers        = 2 // of each peer; what they can't serve yet waits in a queue

	serviceMean  = 5 * time.Millisecond // of a lognormal distribution
	serviceSigma = 0.6

	slowBy    = 4.0              // how many times as long a peer takes during a slow spell
	slowFor   = time.Second      // the mean length of a slow spell
	slowEvery = 19 * time.Second // the mean time between two

	weakBy    = 1.5 // how many times as long a tenth of the peers takes at all times
	weakEvery = 10

	refusalTakes = 200 * time.Microsecond
)

var errRefused = errors.New("connection refused")

// world is the peers and what is to happen, in simulated time.
type world struct {
	now     time.Time
	events  events
	count   int // events so far
	servers []server
	service *rand.Rand
}

// server is a peer with a queue.
type server struct {
	queue   []*probe
	busy    int // workers
	present int // probes that are served or wait, without the cancelled ones
	factor  float64
	slow    bool
	hangs   bool // it never answers
	refuses bool // it answers at once with an error
}

// probe is one request to a server.
type probe struct {
	search *search
	server int
	index  int       // in the query's ledger
	waits  bool      // in the server's queue
	gone   bool      // cancelled
	until  time.Time // when it is given up; zero: when the query ends
}

// search is one query under way.
type search struct {
	query   query
	probes  []*probe
	timer   time.Time // of the event that wakes it; zero: none
	ended   bool
	whenEnd func(*scatter.Response[hit])
}

// query is one query by some strategy. All of its methods but deadline may ask peers.
type query interface {
	begin(now time.Time)
	reply(now time.Time, index int, told feedback, err error)
	advance(now time.Time)
	deadline() (time.Time, bool)
	response() *scatter.Response[hit] // nil while it is under way
}

// feedback is what a server tells of itself with a reply.
type feedback struct {
	present int // probes that are served or wait
	service time.Duration
}

type event struct {
	at    time.Time
	count int // breaks ties
	do    func()
}

// events is a [heap.Interface]; the next event comes first.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if c := e[i].at.Compare(e[j].at); c != 0 {
		return c < 0
	}
	return e[i].count < e[j].count
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

func (w *world) at(t time.Time, do func()) {
	w.count++
	heap.Push(&w.events, event{t, w.count, do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

// run does all that is to happen.
func (w *world) run() {
	for len(w.events) > 0 {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

// begin starts a query.
func (w *world) begin(s *search) {
	s.query.begin(w.now)
	w.settle(s)
}

// settle looks at what has become of a query: it ends it, or sets its timer.
func (w *world) settle(s *search) {
	if resp := s.query.response(); resp != nil {
		s.ended = true
		for _, p := range s.probes {
			w.cancel(p)
		}
		s.whenEnd(resp)
		return
	}
	if due, armed := s.query.deadline(); armed && (s.timer.IsZero() || due.Before(s.timer)) {
		s.timer = due
		w.at(due, func() { w.wake(s, due) })
	}
}

func (w *world) wake(s *search, due time.Time) {
	if s.ended || !s.timer.Equal(due) {
		return
	}
	s.timer = time.Time{}
	s.query.advance(w.now) // which does nothing if its deadline has moved
	w.settle(s)
}

// ask sends a probe to a server.
func (w *world) ask(s *search, to, index int, until time.Time) {
	p := &probe{search: s, server: to, index: index, until: until}
	s.probes = append(s.probes, p)
	sv := &w.servers[to]
	switch {
	case sv.refuses:
		w.after(refusalTakes, func() { w.reply(p, feedback{service: refusalTakes}, errRefused) })
	case !sv.hangs:
		sv.present++
		p.waits = true
		sv.queue = append(sv.queue, p)
		w.serve(to)
	}
}

// cancel takes a probe out of its server's queue. One that is being served is served to its end.
func (w *world) cancel(p *probe) {
	if p.waits {
		p.waits = false
		w.servers[p.server].present--
	}
	p.gone = true
}

// serve gives the probes that wait to the workers that are idle.
func (w *world) serve(i int) {
	sv := &w.servers[i]
	for sv.busy < workers && len(sv.queue) > 0 {
		p := sv.queue[0]
		sv.queue = sv.queue[1:]
		if !p.gone && !p.until.IsZero() && !w.now.Before(p.until) {
			w.cancel(p)
		}
		if p.gone {
			continue
		}
		p.waits = false
		sv.busy++
		takes := w.draw(sv)
		w.after(takes, func() {
			sv.busy--
			sv.present--
			w.reply(p, feedback{sv.present, takes}, nil)
			w.serve(i)
		})
	}
}

// draw draws how long a server takes for one probe.
func (w *world) draw(sv *server) time.Duration {
	d := float64(serviceMean) * math.Exp(serviceSigma*w.service.NormFloat64()-serviceSigma*serviceSigma/2) * sv.factor
	if sv.slow {
		d *= slowBy
	}
	return time.Duration(d)
}

func (w *world) reply(p *probe, told feedback, err error) {
	if s := p.search; !p.gone && !s.ended {
		s.query.reply(w.now, p.index, told, err)
		w.settle(s)
	}
}

// newWorld returns idle servers. Their slow spells depend on the seed alone, and end with stop.
func newWorld(seed uint64, bad bool) (w *world, stop func()) {
	w = &world{now: epoch, servers: make([]server, shards*copies), service: rand.New(rand.NewPCG(seed, 1))}
	stopped := false
	for i := range w.servers {
		sv := &w.servers[i]
		sv.factor = 1
		if i%weakEvery == 3 {
			sv.factor = weakBy
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)+100))
		var change func()
		change = func() {
			if stopped {
				return
			}
			sv.slow = !sv.slow
			mean := slowEvery
			if sv.slow {
				mean = slowFor
			}
			w.after(time.Duration(r.ExpFloat64()*float64(mean)), change)
		}
		w.after(time.Duration(r.ExpFloat64()*float64(slowEvery)), change)
	}
	if bad { // of shards of their own
		w.servers[1].hangs, w.servers[copies*shards/2+1].refuses = true, true
	}
	return w, func() { stopped = true }
}

// capacity is how many probes a second all servers can answer on average.
func (w *world) capacity() float64 {
	sum := 0.0
	slowShare := float64(slowFor) / float64(slowFor+slowEvery)
	for i := range w.servers {
		sum += workers / (serviceMean.Seconds() * w.servers[i].factor * (1 + slowShare*(slowBy-1)))
	}
	return sum
}
