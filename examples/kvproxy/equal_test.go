//go:build unix

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// item is what a test knows of a document that the index "idx" has.
type item struct {
	vector []float32 // nil: none that is indexed
	title  string    // "": none
}

// corpus is all of them, by key: an oracle, by which answers are judged.
type corpus map[string]item

const corpusDim = 16

// metrics of the same field, each under a name of its own.
var corpusMetrics = []metric{metricL2, metricCosine, metricIP}

func corpusIndex() []any {
	args := []any{"FT.CREATE", "idx", "PREFIX", 1, "doc:", "SCHEMA", "title", "TEXT"}
	for i, m := range corpusMetrics {
		algorithm := []string{"FLAT", "HNSW", "FLAT"}[i] // which makes no difference here
		args = append(args, "vec", "AS", string(m), "VECTOR", algorithm, 6, "TYPE", "FLOAT32", "DIM", corpusDim,
			"DISTANCE_METRIC", string(m))
	}
	return args
}

// randomVector is of one of three kinds: of zeros and ones, so that many distances are the same and each is exact;
// usual; or far away from the origin, so that many products, once rounded to a float32, are the same.
func randomVector(r *rand.Rand) []float32 {
	kind := r.IntN(3)
	v := make([]float32, corpusDim)
	for i := range v {
		switch kind {
		case 0:
			v[i] = float32(r.IntN(2))
		case 1:
			v[i] = float32(r.NormFloat64())
		case 2:
			v[i] = 1e4 + float32(r.NormFloat64())/10
		}
	}
	v[0] += 3 // a vector of zeros has no direction
	return v
}

func randomTitle(r *rand.Rand) string {
	words := []string{
		"ball", "bell", "bill", "bowl", "bull", "Zürich", "zip", "unzip", "a", "ab", "aba", "日本", "x.y*",
	}
	title := words[r.IntN(len(words))]
	for range r.IntN(4) {
		title += " " + words[r.IntN(len(words))]
	}
	return title
}

// fill makes a corpus of n documents, each tenth with the vector of another, and returns the commands that store it.
func (c corpus) fill(r *rand.Rand, n int) (commands [][]any) {
	var vectors [][]float32
	for i := range n {
		it := item{randomVector(r), randomTitle(r)}
		if i%10 == 9 {
			it.vector = vectors[r.IntN(len(vectors))]
		}
		vectors = append(vectors, it.vector)
		key := fmt.Sprint("doc:", i)
		c[key] = it
		commands = append(commands, []any{"HSET", key, "vec", vectorBlob(it.vector), "title", it.title})
	}
	for i := range n / 20 { // that the index doesn't have
		key := fmt.Sprint("other:", i)
		commands = append(commands, []any{"HSET", key, "vec", vectorBlob(randomVector(r)), "title", "other"})
	}
	return commands
}

// change changes a corpus in all ways there are, a tenth of its documents in each, and returns the commands that do so.
// Each document is changed but once, so the commands may run in any order.
func (c corpus) change(r *rand.Rand) (commands [][]any) {
	for i, key := range slices.Sorted(maps.Keys(c)) {
		it := c[key]
		switch i % 10 {
		case 0:
			commands = append(commands, []any{"DEL", key})
			delete(c, key)
			continue
		case 1:
			commands = append(commands, []any{"SET", key, "no hash any more"})
			delete(c, key)
			continue
		case 2:
			it.vector = randomVector(r)
			commands = append(commands, []any{"HSET", key, "vec", vectorBlob(it.vector)})
		case 3:
			it.vector = nil
			commands = append(commands, []any{"HSET", key, "vec", vectorBlob(randomVector(r)[1:])}) // too short
		case 4:
			it.vector = nil
			commands = append(commands, []any{"HDEL", key, "vec"})
		case 5:
			it.title = randomTitle(r)
			commands = append(commands, []any{"HSET", key, "title", it.title})
		case 6:
			it.title = ""
			commands = append(commands, []any{"HDEL", key, "title"})
		case 7:
			added := item{randomVector(r), randomTitle(r)}
			commands = append(commands, []any{"HSET", key + "+", "vec", vectorBlob(added.vector), "title", added.title})
			c[key+"+"] = added
		}
		c[key] = it
	}
	return commands
}

// run sends commands through all of some clients, several at a time, and fails the test if one fails.
func runAll(t *testing.T, commands [][]any, clients ...*redis.Client) {
	t.Helper()
	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for i, command := range commands {
		group.Go(func() error { return insist(ctx, clients[i%len(clients)], command...) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commands in %v", len(commands), time.Since(began))
}

// insist runs a command, until it isn't for want of time that it fails: no test may depend on the machine's speed. What
// is run may be run twice.
func insist(ctx context.Context, client *redis.Client, command ...any) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := client.Do(ctx, command...).Err()
		if err == nil || !noQuorum(err) || time.Since(began) > time.Minute {
			return err
		}
	}
}

// noQuorum reports whether a command has failed because too few nodes have answered in time.
func noQuorum(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOQUORUM ") }

// outcome is the reply to a search.
type outcome struct {
	total int
	hits  []hit
}

type hit struct{ id, distance, title string }

func (a outcome) equal(o outcome) bool { return a.total == o.total && slices.Equal(a.hits, o.hits) }

func outcomeOf(result redis.FTSearchResult) outcome {
	a := outcome{total: result.Total}
	for _, doc := range result.Docs {
		a.hits = append(a.hits, hit{doc.ID, doc.Fields["distance"], doc.Fields["title"]})
	}
	return a
}

// whole searches until an answer doesn't say that it is partial.
func whole(search func() (redis.FTSearchResult, error)) (outcome, error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		result, err := search()
		switch {
		case err == nil && len(result.Warnings) == 0:
			return outcomeOf(result), nil
		case err != nil && !noQuorum(err):
			return outcome{}, err
		case time.Since(began) > time.Minute:
			return outcome{}, fmt.Errorf("no whole answer in a minute: %w, %q", err, result.Warnings)
		}
	}
}

// question is one that a cluster is asked, with what its answer must be like.
type question struct {
	text  string
	ask   func(ctx context.Context, client *redis.Client) (redis.FTSearchResult, error)
	check func(c corpus, a outcome) error
}

// knn asks for the k nearest documents.
func knn(m metric, k int, vector []float32) question {
	return question{
		text: fmt.Sprintf("the %d nearest by %s to %v", k, m, vector),
		ask: func(ctx context.Context, client *redis.Client) (redis.FTSearchResult, error) {
			query := "*=>[KNN $k @" + string(m) + " $vector AS distance]"
			return client.FTSearchWithArgs(ctx, "idx", query, &redis.FTSearchOptions{
				Params: map[string]any{"k": k, "vector": vectorBlob(vector)},
				Return: []redis.FTSearchReturn{{FieldName: "distance"}, {FieldName: "title"}},
				Limit:  k, DialectVersion: 2,
			}).Result()
		},
		check: func(c corpus, a outcome) error { return c.checkNearest(m, k, vector, a) },
	}
}

// exactDistance is the distance of two vectors, and how far what an engine says of it may be off by rounding.
func exactDistance(m metric, a, b []float32) (d, slack float64) {
	var dot, aa, bb, size, square float64
	integers := true
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot, aa, bb, size, square = dot+x*y, aa+x*x, bb+y*y, size+math.Abs(x*y), square+(x-y)*(x-y)
		integers = integers && x == math.Trunc(x) && y == math.Trunc(y)
	}
	switch m {
	case metricCosine:
		return 1 - dot/math.Sqrt(aa*bb), 1e-6
	case metricIP:
		d, slack = 1-dot, 1e-6*size
	case metricL2:
		d, slack = square, 1e-6*square
	}
	if integers { // then any way to reckon it is exact
		slack = 0
	}
	return d, slack
}

// checkNearest compares an answer with what a look at each document gives.
func (c corpus) checkNearest(m metric, k int, vector []float32, a outcome) error {
	vectors := 0
	for _, it := range c {
		if it.vector != nil {
			vectors++
		}
	}
	if want := min(k, vectors); len(a.hits) != want || a.total != want {
		return fmt.Errorf("%d hits and a total of %d, want %d", len(a.hits), a.total, want)
	}
	found := make(map[string]bool)
	var last hit
	worst := math.Inf(-1)
	for _, h := range a.hits {
		it, ok := c[h.id]
		d, err := strconv.ParseFloat(h.distance, 64)
		switch {
		case err != nil:
			return err
		case !ok || it.vector == nil || found[h.id]:
			return fmt.Errorf("%s can't be a hit, or not twice", h.id)
		case it.title != h.title:
			return fmt.Errorf("the title of %s is %q, want %q", h.id, h.title, it.title)
		case cmp.Or(cmp.Compare(worst, d), cmp.Compare(last.id, h.id)) >= 0:
			return fmt.Errorf("%v comes before %v", last, h)
		}
		if want, slack := exactDistance(m, vector, it.vector); math.Abs(want-d) > slack {
			return fmt.Errorf("the distance of %s is %v, want %v", h.id, d, want)
		}
		found[h.id], last, worst = true, h, d
	}
	for id, it := range c {
		if it.vector == nil || found[id] {
			continue
		}
		d, slack := exactDistance(m, vector, it.vector)
		if cmp.Or(cmp.Compare(d+slack, worst-slack), cmp.Compare(id, last.id)) < 0 {
			return fmt.Errorf("%s is not among the hits, but at %v, and the last is %v", id, d, last)
		}
	}
	return nil
}

// checkTitles compares an answer with all documents whose titles are of a kind.
func (c corpus) checkTitles(a outcome, wanted func(title string) bool) error {
	var want, got []string
	for id, it := range c {
		if it.title != "" && wanted(it.title) {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	for _, h := range a.hits {
		got = append(got, h.id)
	}
	if !slices.Equal(got, want) || a.total != len(want) {
		return fmt.Errorf("%d hits %q and a total of %d, want %d: %q", len(got), got, a.total, len(want), want)
	}
	return nil
}

// substring asks for the documents with some bytes in their titles.
func substring(part string) question {
	return question{
		text: fmt.Sprintf("titles with %q in them", part),
		ask: func(ctx context.Context, client *redis.Client) (redis.FTSearchResult, error) {
			return client.FTSearchWithArgs(ctx, "idx", "@title:$part", &redis.FTSearchOptions{
				Params: map[string]any{"part": part}, NoContent: true, Limit: maxHits, DialectVersion: 2,
			}).Result()
		},
		check: func(c corpus, a outcome) error {
			return c.checkTitles(a, func(title string) bool { return strings.Contains(title, part) })
		},
	}
}

// regex asks for the documents whose titles match a pattern but for some edits.
func regex(pattern string, edits int, wanted func(title string) bool) question {
	return question{
		text: fmt.Sprintf("titles that match %q but for %d edits", pattern, edits),
		ask: func(ctx context.Context, client *redis.Client) (result redis.FTSearchResult, err error) {
			reply, err := client.Do(ctx, "FT.REGEX", "idx", "title", pattern, fmt.Sprint("K=", edits), "NOCONTENT",
				"LIMIT", 0, maxHits).Result()
			if err != nil {
				return result, err
			}
			fields := reply.(map[any]any) // which go-redis would type only for commands that it knows
			result.Total = int(fields["total_results"].(int64))
			for _, doc := range fields["results"].([]any) {
				result.Docs = append(result.Docs, redis.Document{ID: doc.(map[any]any)["id"].(string)})
			}
			for _, warning := range fields["warning"].([]any) {
				result.Warnings = append(result.Warnings, warning.(string))
			}
			return result, nil
		},
		check: func(c corpus, a outcome) error { return c.checkTitles(a, wanted) },
	}
}

// misses is the least number of edits that make a part of a text a word: see Sellers, "The Theory and Computation of
// Evolutionary Distances", 1980.
func misses(word, text string) int {
	w := []rune(word)
	column := make([]int, len(w)+1) // by how many edits each beginning of the word ends here
	for i := range column {
		column[i] = i
	}
	least := len(w)
	for _, c := range text {
		diagonal := column[0]
		for i := range w {
			edits := diagonal
			if w[i] != c {
				edits = 1 + min(diagonal, column[i], column[i+1])
			}
			diagonal, column[i+1] = column[i+1], edits
		}
		least = min(least, column[len(w)])
	}
	return least
}

// questions are so many of KNN by each metric, and some about titles.
func (c corpus) questions(r *rand.Rand, n int) (list []question) {
	keys := slices.Sorted(maps.Keys(c))
	some := func() item { return c[keys[r.IntN(len(keys))]] }
	for _, m := range corpusMetrics {
		for i := range n {
			vector, k := randomVector(r), 1+r.IntN(10)
			if it := some(); i%4 == 0 && it.vector != nil {
				vector = it.vector
			}
			if i%4 == 1 {
				k = 1 + r.IntN(50)
			}
			list = append(list, knn(m, k, vector))
		}
	}
	list = append(list, knn(metricL2, maxHits, randomVector(r))) // all
	for range n / 5 {
		if title := some().title; title != "" {
			from := r.IntN(len(title))
			list = append(list, substring(title[from:from+1+r.IntN(len(title)-from)]))
		}
	}
	for _, pattern := range []string{
		"zip", "^zip", "ll$", "b[aeiou]ll", "^(ball|bell)( |$)", "a{1,2}b", "x.y", "Z.rich", `\.y\*`, "^.*$",
		"no such title",
	} {
		list = append(list, regex(pattern, 0, regexp.MustCompile(pattern).MatchString))
	}
	for _, word := range []string{"Zurich", "unzipp", "blow", "日", "日日本"} {
		for edits := range 3 {
			list = append(list, regex(word, edits, func(title string) bool { return misses(word, title) <= edits }))
		}
	}
	return list
}

// compare asks one node with all documents, and a cluster by way of each of some clients.
func (c corpus) compare(t *testing.T, questions []question, one *redis.Client, clients ...*redis.Client) {
	t.Helper()
	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i, q := range questions {
		group.Go(func() error {
			want, err := whole(func() (redis.FTSearchResult, error) { return q.ask(ctx, one) })
			if err == nil {
				err = q.check(c, want)
			}
			if err != nil {
				return fmt.Errorf("one node: %s: %w", q.text, err)
			}
			got, err := whole(func() (redis.FTSearchResult, error) { return q.ask(ctx, clients[i%len(clients)]) })
			if err == nil && !got.equal(want) {
				err = fmt.Errorf("the answer\n%v\nbut of one node\n%v", got, want)
			}
			if err != nil {
				return fmt.Errorf("the cluster: %s: %w", q.text, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d questions in %v", len(questions), time.Since(began))
}

// clientsOf returns clients of the nodes, and last one of the proxy.
func clientsOf(t *testing.T, c *cluster) (clients []*redis.Client) {
	for _, m := range c.proxy.view.Load().members { // by name
		client := clientOf(m.addr)
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
	}
	return clients
}

// A cluster answers as one node with all documents does, to the last digit, and as a look at each document tells.
func TestClusterEqualsOneNode(t *testing.T) {
	c, _ := newTestCluster(t, 5)
	clients := clientsOf(t, c)
	single, err := startNode(config{
		listen: "127.0.0.1:0", http: "127.0.0.1:0", gossip: "127.0.0.1:0", data: t.TempDir(), replicas: 1, tokens: 16,
		timeout: searchTime, clients: 1000,
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	one := clientOf(single.server.addr())
	t.Cleanup(func() {
		one.Close()
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		single.stop(ctx)
	})

	r := rand.New(rand.NewPCG(1, 2))
	docs := make(corpus)
	commands := docs.fill(r, 1000)
	for _, to := range [][]*redis.Client{clients, {one}} {
		runAll(t, [][]any{corpusIndex()}, to...)
		runAll(t, commands, to...)
	}
	docs.compare(t, docs.questions(r, 200), one, clients...)

	commands = docs.change(r)
	runAll(t, commands, clients...)
	runAll(t, commands, one)
	docs.compare(t, docs.questions(r, 20), one, clients...)

	c.nodes[0].kill(t)
	docs.compare(t, docs.questions(r, 20), one, clients[1:]...)
	commands = docs.change(r)
	runAll(t, commands, clients[1:]...)
	runAll(t, commands, one)
	docs.compare(t, docs.questions(r, 20), one, clients[1:]...)
}
