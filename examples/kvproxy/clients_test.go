//go:build unix

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// library is one of Redis's client libraries, as far as these tests use it. Where it has a typed function for
// something, that is what a method calls.
type library interface {
	do(ctx context.Context, words ...any) (any, error)
	pipeline(ctx context.Context, commands ...[]any) []error

	ping(ctx context.Context) (string, error)
	set(ctx context.Context, key, value string) error
	get(ctx context.Context, key string) (string, error) // errNone if it isn't there
	del(ctx context.Context, keys ...string) (int64, error)
	exists(ctx context.Context, keys ...string) (int64, error)
	typeOf(ctx context.Context, key string) (string, error)
	hset(ctx context.Context, key string, fields map[string]string) (int64, error)
	hget(ctx context.Context, key, field string) (string, error) // errNone if it isn't there
	hmget(ctx context.Context, key string, fields ...string) ([]string, error)
	hgetall(ctx context.Context, key string) (map[string]string, error)
	hdel(ctx context.Context, key string, fields ...string) (int64, error)

	load(ctx context.Context, documents map[string]map[string]string) error // in a pipeline
	create(ctx context.Context, index, prefix string) error                 // as [wantedIndex] says
	index(ctx context.Context, name string) (indexFacts, error)
	indexes(ctx context.Context) ([]string, error)
	drop(ctx context.Context, index string, documents bool) error
	search(ctx context.Context, index, query string, how asked) (answer, error)
	regex(ctx context.Context, index, field, pattern string, more ...any) (answer, error)
}

var errNone = errors.New("none")

// asked is what follows a query. There are four kinds: nothing; PARAMS; NOCONTENT, LIMIT and PARAMS; all but NOCONTENT.
type asked struct {
	param         string // named v
	noContent     bool
	returned      []returned
	sortBy        string
	descending    bool
	offset, count int
}

// answer is a reply to FT.SEARCH.
type answer struct {
	total    int
	docs     []answered
	warnings []string // nil by version 2 of the protocol
}

type answered struct {
	id     string
	fields map[string]string
}

// indexFacts is a reply to FT.INFO. Of an attribute it has the field, the name, the type, a vector's parameters, a
// text's weight and whether it is sortable.
type indexFacts struct {
	name, keyType string
	prefixes      []string
	documents     int
	attributes    []string
}

// wantedIndex is what each library creates: three indexes over the same vectors, by different metrics.
func wantedIndex(name, prefix string) indexFacts {
	return indexFacts{name: name, keyType: "HASH", prefixes: []string{prefix}, attributes: []string{
		"title title TEXT  0  0 0 2 false",
		"kind kind TAG  0  0 0 0 false",
		"year year NUMERIC  0  0 0 0 true",
		"vec flat VECTOR FLAT 8 L2 0 0 0 false",
		"vec hnsw VECTOR HNSW 8 COSINE 12 100 0 false",
		"vec inner VECTOR FLAT 8 IP 0 0 0 false",
	}}
}

// goRedis is github.com/redis/go-redis.
type goRedis struct{ c *redis.Client }

func (l goRedis) do(ctx context.Context, words ...any) (any, error) {
	return l.c.Do(ctx, words...).Result()
}
func (l goRedis) ping(ctx context.Context) (string, error) { return l.c.Ping(ctx).Result() }
func (l goRedis) set(ctx context.Context, key, value string) error {
	return l.c.Set(ctx, key, value, 0).Err()
}

func (l goRedis) pipeline(ctx context.Context, commands ...[]any) (errs []error) {
	p := l.c.Pipeline()
	for _, words := range commands {
		p.Do(ctx, words...)
	}
	replies, _ := p.Exec(ctx) // the first error, which is among the replies, too
	for _, r := range replies {
		errs = append(errs, r.Err())
	}
	return errs
}

func orNone(value string, err error) (string, error) {
	if errors.Is(err, redis.Nil) || rueidis.IsRedisNil(err) {
		err = errNone
	}
	return value, err
}

func (l goRedis) get(ctx context.Context, key string) (string, error) {
	return orNone(l.c.Get(ctx, key).Result())
}
func (l goRedis) del(ctx context.Context, keys ...string) (int64, error) {
	return l.c.Del(ctx, keys...).Result()
}
func (l goRedis) exists(ctx context.Context, keys ...string) (int64, error) {
	return l.c.Exists(ctx, keys...).Result()
}
func (l goRedis) typeOf(ctx context.Context, key string) (string, error) {
	return l.c.Type(ctx, key).Result()
}
func (l goRedis) hset(ctx context.Context, key string, fields map[string]string) (int64, error) {
	return l.c.HSet(ctx, key, fields).Result()
}
func (l goRedis) hget(ctx context.Context, key, field string) (string, error) {
	return orNone(l.c.HGet(ctx, key, field).Result())
}
func (l goRedis) hmget(ctx context.Context, key string, fields ...string) (list []string, err error) {
	values, err := l.c.HMGet(ctx, key, fields...).Result()
	for _, v := range values {
		list = append(list, fmt.Sprint(v))
	}
	return list, err
}
func (l goRedis) hgetall(ctx context.Context, key string) (map[string]string, error) {
	return l.c.HGetAll(ctx, key).Result()
}
func (l goRedis) hdel(ctx context.Context, key string, fields ...string) (int64, error) {
	return l.c.HDel(ctx, key, fields...).Result()
}

func (l goRedis) load(ctx context.Context, documents map[string]map[string]string) error {
	_, err := l.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for key, fields := range documents {
			p.HSet(ctx, key, fields)
		}
		return nil
	})
	return err
}

func (l goRedis) create(ctx context.Context, index, prefix string) error {
	return l.c.FTCreate(ctx, index, &redis.FTCreateOptions{OnHash: true, Prefix: []any{prefix}},
		&redis.FieldSchema{FieldName: "title", FieldType: redis.SearchFieldTypeText, Weight: 2},
		&redis.FieldSchema{FieldName: "kind", FieldType: redis.SearchFieldTypeTag, Separator: ";"},
		&redis.FieldSchema{FieldName: "year", FieldType: redis.SearchFieldTypeNumeric, Sortable: true},
		&redis.FieldSchema{FieldName: "vec", As: "flat", FieldType: redis.SearchFieldTypeVector,
			VectorArgs: &redis.FTVectorArgs{FlatOptions: &redis.FTFlatOptions{
				Type: "FLOAT32", Dim: 8, DistanceMetric: "L2", InitialCapacity: 100, BlockSize: 64,
			}}},
		&redis.FieldSchema{FieldName: "vec", As: "hnsw", FieldType: redis.SearchFieldTypeVector,
			VectorArgs: &redis.FTVectorArgs{HNSWOptions: &redis.FTHNSWOptions{
				Type: "FLOAT32", Dim: 8, DistanceMetric: "COSINE", InitialCapacity: 100, MaxEdgesPerNode: 12,
				MaxAllowedEdgesPerNode: 100, EFRunTime: 20, Epsilon: 0.01,
			}}},
		&redis.FieldSchema{FieldName: "vec", As: "inner", FieldType: redis.SearchFieldTypeVector,
			VectorArgs: &redis.FTVectorArgs{FlatOptions: &redis.FTFlatOptions{
				Type: "FLOAT32", Dim: 8, DistanceMetric: "IP",
			}}},
	).Err()
}

func (l goRedis) index(ctx context.Context, name string) (indexFacts, error) {
	r, err := l.c.FTInfo(ctx, name).Result()
	facts := indexFacts{
		name: r.IndexName, keyType: r.IndexDefinition.KeyType, prefixes: r.IndexDefinition.Prefixes,
		documents: r.NumDocs,
	}
	for _, at := range r.Attributes {
		facts.attributes = append(facts.attributes, fmt.Sprint(at.Identifier, " ", at.Attribute, " ", at.Type, " ",
			at.Algorithm, " ", at.Dim, " ", at.DistanceMetric, " ", at.M, " ", at.EFConstruction, " ", at.Weight, " ",
			at.Sortable))
	}
	return facts, err
}

func (l goRedis) indexes(ctx context.Context) ([]string, error) { return l.c.FT_List(ctx).Result() }
func (l goRedis) drop(ctx context.Context, index string, documents bool) error {
	return l.c.FTDropIndexWithArgs(ctx, index, &redis.FTDropIndexOptions{DeleteDocs: documents}).Err()
}

func (l goRedis) search(ctx context.Context, index, query string, how asked) (answer, error) {
	reply := l.c.FTSearch(ctx, index, query)
	if how.param != "" {
		options := &redis.FTSearchOptions{
			NoContent: how.noContent, Params: map[string]any{"v": how.param}, LimitOffset: how.offset, Limit: how.count,
			DialectVersion: 2,
		}
		for _, r := range how.returned {
			options.Return = append(options.Return, redis.FTSearchReturn{FieldName: r.field, As: r.as})
		}
		if how.sortBy != "" {
			by := redis.FTSearchSortBy{FieldName: how.sortBy, Asc: !how.descending, Desc: how.descending}
			options.SortBy = []redis.FTSearchSortBy{by}
		}
		reply = l.c.FTSearchWithArgs(ctx, index, query, options)
	}
	r, err := reply.Result()
	a := answer{total: r.Total, warnings: r.Warnings}
	for _, doc := range r.Docs {
		a.docs = append(a.docs, answered{doc.ID, doc.Fields})
	}
	return a, err
}

func (l goRedis) regex(ctx context.Context, index, field, pattern string, more ...any) (a answer, err error) {
	reply, err := l.c.Do(ctx, append([]any{"FT.REGEX", index, field, pattern}, more...)...).Result()
	switch reply := reply.(type) { // there is no function for it
	case map[any]any:
		a.total, a.warnings = int(reply["total_results"].(int64)), []string{}
		for _, r := range reply["results"].([]any) {
			doc := answered{r.(map[any]any)["id"].(string), make(map[string]string)}
			for name, value := range r.(map[any]any)["extra_attributes"].(map[any]any) {
				doc.fields[name.(string)] = value.(string)
			}
			a.docs = append(a.docs, doc)
		}
	case []any:
		a.total = int(reply[0].(int64))
		for i := 1; i < len(reply); i += 2 {
			doc := answered{reply[i].(string), make(map[string]string)}
			for pair := range slices.Chunk(reply[i+1].([]any), 2) {
				doc.fields[pair[0].(string)] = pair[1].(string)
			}
			a.docs = append(a.docs, doc)
		}
	}
	return a, err
}

// ruEidis is github.com/redis/rueidis.
type ruEidis struct{ c rueidis.Client }

func (l ruEidis) command(words []any) rueidis.Completed {
	command := l.c.B().Arbitrary(words[0].(string))
	for _, word := range words[1:] {
		command = command.Args(fmt.Sprint(word))
	}
	return command.Build()
}

func (l ruEidis) do(ctx context.Context, words ...any) (any, error) {
	return l.c.Do(ctx, l.command(words)).ToAny()
}

func (l ruEidis) pipeline(ctx context.Context, commands ...[]any) (errs []error) {
	var all rueidis.Commands
	for _, words := range commands {
		all = append(all, l.command(words))
	}
	for _, r := range l.c.DoMulti(ctx, all...) {
		errs = append(errs, r.Error())
	}
	return errs
}

func (l ruEidis) ping(ctx context.Context) (string, error) {
	return l.c.Do(ctx, l.c.B().Ping().Build()).ToString()
}
func (l ruEidis) set(ctx context.Context, key, value string) error {
	return l.c.Do(ctx, l.c.B().Set().Key(key).Value(value).Build()).Error()
}
func (l ruEidis) get(ctx context.Context, key string) (string, error) {
	return orNone(l.c.Do(ctx, l.c.B().Get().Key(key).Build()).ToString())
}
func (l ruEidis) del(ctx context.Context, keys ...string) (int64, error) {
	return l.c.Do(ctx, l.c.B().Del().Key(keys...).Build()).AsInt64()
}
func (l ruEidis) exists(ctx context.Context, keys ...string) (int64, error) {
	return l.c.Do(ctx, l.c.B().Exists().Key(keys...).Build()).AsInt64()
}
func (l ruEidis) typeOf(ctx context.Context, key string) (string, error) {
	return l.c.Do(ctx, l.c.B().Type().Key(key).Build()).ToString()
}
func (l ruEidis) hsetCommand(key string, fields map[string]string) rueidis.Completed {
	command := l.c.B().Hset().Key(key).FieldValue()
	for name, value := range fields {
		command = command.FieldValue(name, value)
	}
	return command.Build()
}
func (l ruEidis) hset(ctx context.Context, key string, fields map[string]string) (int64, error) {
	return l.c.Do(ctx, l.hsetCommand(key, fields)).AsInt64()
}
func (l ruEidis) hget(ctx context.Context, key, field string) (string, error) {
	return orNone(l.c.Do(ctx, l.c.B().Hget().Key(key).Field(field).Build()).ToString())
}
func (l ruEidis) hmget(ctx context.Context, key string, fields ...string) (list []string, err error) {
	values, err := l.c.Do(ctx, l.c.B().Hmget().Key(key).Field(fields...).Build()).ToArray()
	for _, v := range values {
		list = append(list, shownMessage(v))
	}
	return list, err
}
func (l ruEidis) hgetall(ctx context.Context, key string) (map[string]string, error) {
	return l.c.Do(ctx, l.c.B().Hgetall().Key(key).Build()).AsStrMap()
}
func (l ruEidis) hdel(ctx context.Context, key string, fields ...string) (int64, error) {
	return l.c.Do(ctx, l.c.B().Hdel().Key(key).Field(fields...).Build()).AsInt64()
}

// shownMessage is a value of any type as a text.
func shownMessage(m rueidis.RedisMessage) string {
	v, _ := m.ToAny()
	return fmt.Sprint(v)
}

func (l ruEidis) load(ctx context.Context, documents map[string]map[string]string) error {
	var all rueidis.Commands
	for key, fields := range documents {
		all = append(all, l.hsetCommand(key, fields))
	}
	var errs []error
	for _, r := range l.c.DoMulti(ctx, all...) {
		errs = append(errs, r.Error())
	}
	return errors.Join(errs...)
}

func (l ruEidis) create(ctx context.Context, index, prefix string) error {
	return l.c.Do(ctx, l.c.B().FtCreate().Index(index).OnHash().Prefix(1).Prefix(prefix).Schema().
		FieldName("title").Text().Weight(2).
		FieldName("kind").Tag().Separator(";").
		FieldName("year").Numeric().Sortable().
		FieldName("vec").As("flat").Vector("FLAT", 10, "TYPE", "FLOAT32", "DIM", "8", "DISTANCE_METRIC", "L2",
		"INITIAL_CAP", "100", "BLOCK_SIZE", "64").
		FieldName("vec").As("hnsw").Vector("HNSW", 14, "TYPE", "FLOAT32", "DIM", "8", "DISTANCE_METRIC", "COSINE",
		"M", "12", "EF_CONSTRUCTION", "100", "EF_RUNTIME", "20", "EPSILON", "0.01").
		FieldName("vec").As("inner").Vector("FLAT", 6, "TYPE", "FLOAT32", "DIM", "8", "DISTANCE_METRIC", "IP").
		Build()).Error()
}

func (l ruEidis) index(ctx context.Context, name string) (facts indexFacts, err error) {
	reply, err := l.c.Do(ctx, l.c.B().FtInfo().Index(name).Build()).AsMap()
	if err != nil {
		return facts, err
	}
	message := func(name string) *rueidis.RedisMessage { m := reply[name]; return &m }
	facts.name, _ = message("index_name").ToString()
	documents, _ := message("num_docs").AsInt64()
	facts.documents = int(documents)
	definition, err := message("index_definition").AsMap()
	if err != nil {
		return facts, err
	}
	keyType, prefixes := definition["key_type"], definition["prefixes"]
	facts.keyType, _ = keyType.ToString()
	facts.prefixes, _ = prefixes.AsStrSlice()
	attributes, err := message("attributes").ToArray()
	for _, at := range attributes {
		values := map[string]string{"dim": "0", "M": "0", "ef_construction": "0", "WEIGHT": "0"}
		sortable := false
		if at.IsMap() {
			pairs, _ := at.AsMap()
			for name, value := range pairs {
				values[name] = shownMessage(value)
			}
			sortable = strings.Contains(values["flags"], "SORTABLE")
		} else { // pairs, and flags at the end
			words, _ := at.ToArray()
			for i := 0; i < len(words); i++ {
				if word := shownMessage(words[i]); word == "SORTABLE" {
					sortable = true
				} else if i++; i < len(words) {
					values[word] = shownMessage(words[i])
				}
			}
		}
		var words []string
		for _, name := range []string{
			"identifier", "attribute", "type", "algorithm", "dim", "distance_metric", "M", "ef_construction", "WEIGHT",
		} {
			words = append(words, values[name])
		}
		facts.attributes = append(facts.attributes, strings.Join(append(words, strconv.FormatBool(sortable)), " "))
	}
	return facts, err
}

func (l ruEidis) indexes(ctx context.Context) ([]string, error) {
	return l.c.Do(ctx, l.c.B().FtList().Build()).AsStrSlice()
}
func (l ruEidis) drop(ctx context.Context, index string, documents bool) error {
	if documents {
		return l.c.Do(ctx, l.c.B().FtDropindex().Index(index).Dd().Build()).Error()
	}
	return l.c.Do(ctx, l.c.B().FtDropindex().Index(index).Build()).Error()
}

func (l ruEidis) search(ctx context.Context, index, query string, how asked) (answer, error) {
	q := l.c.B().FtSearch().Index(index).Query(query)
	offset, count := int64(how.offset), int64(how.count)
	var command rueidis.Completed
	switch {
	case how.param == "":
		command = q.Build()
	case how.noContent:
		command = q.Nocontent().Limit().OffsetNum(offset, count).
			Params().Nargs(2).NameValue().NameValue("v", how.param).Dialect(2).Build()
	case how.returned == nil:
		command = q.Params().Nargs(2).NameValue().NameValue("v", how.param).Dialect(2).Build()
	default:
		fields := q.Return(strconv.Itoa(3 * len(how.returned))).Identifier(how.returned[0].field).As(how.returned[0].as)
		for _, r := range how.returned[1:] {
			fields = fields.Identifier(r.field).As(r.as)
		}
		by := fields.Sortby(how.sortBy)
		limit := by.Limit
		if how.descending {
			limit = by.Desc().Limit
		}
		command = limit().OffsetNum(offset, count).
			Params().Nargs(2).NameValue().NameValue("v", how.param).Dialect(2).Build()
	}
	return l.answer(l.c.Do(ctx, command))
}

func (l ruEidis) regex(ctx context.Context, index, field, pattern string, more ...any) (answer, error) {
	return l.answer(l.c.Do(ctx, l.command(append([]any{"FT.REGEX", index, field, pattern}, more...))))
}

func (l ruEidis) answer(r rueidis.RedisResult) (a answer, err error) {
	total, docs, err := r.AsFtSearch()
	a.total = int(total)
	for _, doc := range docs {
		a.docs = append(a.docs, answered{doc.Key, doc.Doc})
	}
	if m, err := r.ToMap(); err == nil { // of version 3 of the protocol
		warnings := m["warning"]
		a.warnings, _ = warnings.AsStrSlice()
	}
	return a, err
}

// collection is what a library loads, and what to expect of searches in it.
type collection struct {
	prefix    string
	vectors   map[string][]float32         // by key
	documents map[string]map[string]string // likewise
}

func newCollection(prefix string) *collection {
	c := &collection{prefix: prefix, vectors: make(map[string][]float32), documents: make(map[string]map[string]string)}
	r := rand.New(rand.NewPCG(1, 2))
	nouns := []string{"zip archive", "tar archive", "reader", "buffered reader", "writer"}
	for i := range 200 {
		key := fmt.Sprintf("%s%03d", prefix, i)
		vector := make([]float32, 8)
		for j := range vector {
			vector[j] = float32(r.IntN(9) - 4) // sums of their products are exact, and some documents are equally near
		}
		vector[0] += 0.5 // none is all zeros
		c.vectors[key] = vector
		c.documents[key] = map[string]string{
			"title": fmt.Sprint("a ", nouns[r.IntN(len(nouns))], ", number ", i), "kind": string(rune('a' + i%3)),
			"year": strconv.Itoa(1990 + r.IntN(30)), "vec": vectorBlob(vector),
		}
	}
	// These have no vectors, one of them because it has a wrong one.
	c.documents[prefix+"bare"] = map[string]string{"title": "a zip without a vector"}
	c.documents[prefix+"short"] = map[string]string{"title": "a zip with a short one", "vec": "1234"}
	return c
}

func vectorBlob(vector []float32) string {
	var b []byte
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return string(b)
}

// nearDoc is a document and how far away it is.
type nearDoc struct {
	id       string
	distance float64
}

func distanceBy(metric string, x, y []float32) float64 {
	var dot, xx, yy, squares float64
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		dot, xx, yy, squares = dot+a*b, xx+a*a, yy+b*b, squares+(a-b)*(a-b)
	}
	return map[string]float64{"L2": squares, "IP": 1 - dot, "COSINE": 1 - dot/math.Sqrt(xx*yy)}[metric]
}

// nearest returns the k nearest documents, the nearest first.
func (c *collection) nearest(metric string, query []float32, k int) (list []nearDoc) {
	for key, vector := range c.vectors {
		list = append(list, nearDoc{key, distanceBy(metric, query, vector)})
	}
	slices.SortFunc(list, func(a, b nearDoc) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.id, b.id))
	})
	return list[:k]
}

// matching returns the keys, sorted, of the documents whose title is as wanted.
func (c *collection) matching(wanted func(title string) bool) (keys []string) {
	for key, fields := range c.documents {
		if wanted(fields["title"]) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// checkNear compares the documents of an answer, whose distances are in a field, with those wanted. Where distances
// aren't exact, two that are almost the same may come in either order.
func (c *collection) checkNear(
	t *testing.T, metric string, query []float32, field string, got []answered, want []nearDoc,
) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d documents, want %d", len(got), len(want))
	}
	seen := make(map[string]bool)
	for i, doc := range got {
		distance, err := strconv.ParseFloat(doc.fields[field], 64)
		own := distanceBy(metric, query, c.vectors[doc.id])
		switch {
		case err != nil:
			t.Errorf("%d: %s: %v", i, field, err)
		case math.Abs(distance-want[i].distance) > 1e-5 || math.Abs(distance-own) > 1e-5 || seen[doc.id]:
			t.Errorf("%d: %s at %v, which is at %v; want %v", i, doc.id, distance, own, want[i])
		case metric != "COSINE" && doc.id != want[i].id:
			t.Errorf("%d: %s, want %v", i, doc.id, want[i])
		}
		seen[doc.id] = true
	}
}

func idsOf(docs []answered) (list []string) {
	for _, doc := range docs {
		list = append(list, doc.id)
	}
	return list
}

// checkError compares an error with the text that Redis and RediSearch have for it. What may differ comes after *.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	start, more := strings.CutSuffix(want, "*")
	if err == nil {
		t.Errorf("no error, want %q", want)
	} else if got := err.Error(); got != start && !(more && strings.HasPrefix(got, start)) {
		t.Errorf("error %q, want %q", got, want)
	}
}

// Each library, by each version of the protocol, creates, loads and searches, and finds what a look at all documents
// does.
func TestClientLibraries(t *testing.T) {
	c, _ := newTestCluster(t, 3)
	addr := c.proxy.server.addr()
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprint("go-redis, RESP", proto), func(t *testing.T) {
			t.Parallel()
			client := redis.NewClient(&redis.Options{
				Addr: addr, Protocol: proto, ClientName: "test", MaxRetries: -1, ContextTimeoutEnabled: true,
				ReadTimeout: time.Minute,
			})
			defer client.Close()
			testLibrary(t, goRedis{client}, proto, fmt.Sprint("go", proto))
		})
		t.Run(fmt.Sprint("rueidis, RESP", proto), func(t *testing.T) {
			t.Parallel()
			client, err := rueidis.NewClient(rueidis.ClientOption{
				InitAddress: []string{addr}, ClientName: "test", AlwaysRESP2: proto == 2, DisableCache: true,
				DisableRetry: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			testLibrary(t, ruEidis{client}, proto, fmt.Sprint("ru", proto))
		})
	}
}

func testLibrary(t *testing.T, l library, proto int, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("connection", func(t *testing.T) { testConnection(ctx, t, l, proto) })
	t.Run("keys", func(t *testing.T) { testKeys(ctx, t, l, name+"k:") })
	t.Run("errors", func(t *testing.T) { testErrors(ctx, t, l, name+"e:") })
	t.Run("searches", func(t *testing.T) { testSearches(ctx, t, l, proto, name) })
}

func testConnection(ctx context.Context, t *testing.T, l library, proto int) {
	if got, err := l.ping(ctx); got != "PONG" || err != nil {
		t.Errorf("PING: %q, %v", got, err)
	}
	// What the library has said when it connected has come through.
	hello, err := l.do(ctx, "HELLO")
	said := make(map[string]any)
	switch hello := hello.(type) {
	case map[any]any: // go-redis, version 3
		for name, value := range hello {
			said[name.(string)] = value
		}
	case map[string]any: // rueidis, version 3
		said = hello
	case []any:
		for pair := range slices.Chunk(hello, 2) {
			said[pair[0].(string)] = pair[1]
		}
	}
	if said["proto"] != int64(proto) || err != nil {
		t.Errorf("HELLO: %v, %v; want version %d", hello, err, proto)
	}
	if got, err := l.do(ctx, "CLIENT", "GETNAME"); got != "test" || err != nil {
		t.Errorf("CLIENT GETNAME: %v, %v", got, err)
	}
	for _, words := range [][]any{{"CLIENT", "SETINFO", "LIB-NAME", "a"}, {"SELECT", 0}} {
		if got, err := l.do(ctx, words...); got != "OK" || err != nil {
			t.Errorf("%v: %v, %v", words, got, err)
		}
	}
}

func testKeys(ctx context.Context, t *testing.T, l library, prefix string) {
	text, hash, none := prefix+"text", prefix+"hash", prefix+"none"
	binary := "\x00\r\n\xff$-1\r\n" // anything
	check := func(what string, got, want any, err error) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
			t.Errorf("%s: %q, %v; want %q", what, fmt.Sprint(got), err, fmt.Sprint(want))
		}
	}
	for _, value := range []string{"one", binary, ""} {
		if err := l.set(ctx, text, value); err != nil {
			t.Fatal(err)
		}
		got, err := l.get(ctx, text)
		check("GET", got, value, err)
	}
	if _, err := l.get(ctx, none); err != errNone {
		t.Errorf("GET of nothing: %v", err)
	}
	added, err := l.hset(ctx, hash, map[string]string{"a": "1", "b": binary, "": ""})
	check("HSET", added, 3, err)
	added, err = l.hset(ctx, hash, map[string]string{"a": "2", "c": "3"})
	check("HSET", added, 1, err)
	value, err := l.hget(ctx, hash, "b")
	check("HGET", value, binary, err)
	for _, key := range []string{hash, none} {
		if _, err := l.hget(ctx, key, "d"); err != errNone {
			t.Errorf("HGET of nothing: %v", err)
		}
	}
	values, err := l.hmget(ctx, hash, "c", "d", "a", "c")
	check("HMGET", values, []any{"3", nil, "2", "3"}, err)
	values, err = l.hmget(ctx, none, "c", "d")
	check("HMGET", values, []any{nil, nil}, err)
	all, err := l.hgetall(ctx, hash)
	check("HGETALL", all, map[string]string{"": "", "a": "2", "b": binary, "c": "3"}, err)
	all, err = l.hgetall(ctx, none)
	check("HGETALL", all, map[string]string{}, err)
	removed, err := l.hdel(ctx, hash, "a", "a", "d", "")
	check("HDEL", removed, 2, err)
	all, err = l.hgetall(ctx, hash)
	check("HGETALL", all, map[string]string{"b": binary, "c": "3"}, err)
	for key, want := range map[string]string{text: "string", hash: "hash", none: "none"} {
		got, err := l.typeOf(ctx, key)
		check("TYPE", got, want, err)
	}
	count, err := l.exists(ctx, text, hash, none, text)
	check("EXISTS", count, 3, err)
	count, err = l.del(ctx, text, none, text)
	check("DEL", count, 1, err)
	removed, err = l.hdel(ctx, hash, "b", "c")
	check("HDEL", removed, 2, err)
	count, err = l.exists(ctx, text, hash) // a hash without fields is none
	check("EXISTS", count, 0, err)

	var commands [][]any
	for i := range 50 {
		commands = append(commands, []any{"SET", text, i}, []any{"HGET", text, "a"}, []any{"GET", text})
	}
	for i, err := range l.pipeline(ctx, commands...) {
		if wrong := i%3 == 1; wrong {
			checkError(t, err, string(errWrongType))
		} else if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	value, err = l.get(ctx, text)
	check("GET after a pipeline", value, 49, err)
}

func testErrors(ctx context.Context, t *testing.T, l library, prefix string) {
	text, hash := prefix+"text", prefix+"hash"
	for i, err := range l.pipeline(ctx, []any{"SET", text, 1}, []any{"HSET", hash, "title", 1}, []any{
		"FT.CREATE", prefix, "PREFIX", 1, prefix, "SCHEMA", "title", "TEXT", "kind", "TAG", "v", "VECTOR", "HNSW", 6,
		"TYPE", "FLOAT32", "DIM", 2, "DISTANCE_METRIC", "L2",
	}) {
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	knn := func(query, blob string) []any {
		return []any{"FT.SEARCH", prefix, query, "PARAMS", 2, "b", blob, "DIALECT", 2}
	}
	// The words of Redis and of RediSearch. rueidis leaves out an ERR at the beginning.
	for _, test := range []struct {
		want  string
		words []any
	}{
		{"unknown command 'NOPE', with args beginning with: 'a' 'b' ", []any{"NOPE", "a", "b"}},
		{"wrong number of arguments for 'get' command", []any{"GET"}},
		{"wrong number of arguments for 'hset' command", []any{"HSET", hash, "a"}},
		{"wrong number of arguments for 'hset' command", []any{"HSET", hash, "a", "b", "c"}},
		{"syntax error", []any{"SET", text, "1", "EX", "10"}},
		{"DB index is out of range", []any{"SELECT", 1}},
		{"NOPROTO unsupported protocol version", []any{"HELLO", 4}},
		{string(errWrongType), []any{"GET", hash}},
		{string(errWrongType), []any{"HGET", text, "a"}},
		{string(errWrongType), []any{"HMGET", text, "a"}},
		{string(errWrongType), []any{"HGETALL", text}},
		{string(errWrongType), []any{"HSET", text, "a", "b"}},
		{string(errWrongType), []any{"HDEL", text, "a"}},

		{"Index already exists", []any{"FT.CREATE", prefix, "SCHEMA", "a", "TEXT"}},
		{"Unknown index name", []any{"FT.INFO", "nope"}},
		{"No such index nope", []any{"FT.SEARCH", "nope", "*"}},
		{"No such index nope", []any{"FT.REGEX", "nope", "title", "a"}},
		{"Unknown field `nope`", []any{"FT.REGEX", prefix, "nope", "a"}},
		{"Error parsing vector similarity query: query vector blob size (4) does not match index's expected size (8).",
			knn("*=>[KNN 2 @v $b]", "1234")},
		{"Unknown field at offset 10 near w*", knn("*=>[KNN 2 @w $b]", "12345678")},
		{"Expected a VECTOR field at offset 10 near title*", knn("*=>[KNN 2 @title $b]", "12345678")},
		{"No such parameter `c`", knn("*=>[KNN 2 @v $c]", "12345678")},
		{"Syntax error at offset 15 near *", knn("*=>[KNN 2 @v $b", "12345678")},
		{"Syntax error at offset *", []any{"FT.SEARCH", prefix, "@title:("}},
		{"Syntax error at offset *", []any{"FT.SEARCH", prefix, "@title:a @title:b"}},
		{"Syntax error at offset *", []any{"FT.SEARCH", prefix, "(@title:a)=>[KNN 2 @v $b]"}}, // a filter
		{"Expected a TEXT field at offset 0 near v", []any{"FT.SEARCH", prefix, "@v:[VECTOR_RANGE 1 $b]"}},
		{"Expected a TEXT field at offset 0 near kind", []any{"FT.SEARCH", prefix, "@kind:a"}},
		{"Unknown argument `NOPE` at position 1 for <main>", []any{"FT.SEARCH", prefix, "*", "NOPE"}},
		{"LIMIT needs two numeric arguments", []any{"FT.SEARCH", prefix, "*", "LIMIT", -1, 10}},
		{"Invalid field type for field `a`", []any{"FT.CREATE", "other", "SCHEMA", "a", "NOPE"}},
	} {
		_, err := l.do(ctx, test.words...)
		if err != nil {
			err = errors.New(strings.TrimPrefix(err.Error(), "ERR "))
		}
		checkError(t, err, test.want)
	}
	if got, err := l.ping(ctx); got != "PONG" || err != nil {
		t.Errorf("PING: %q, %v", got, err)
	}
	if err := l.drop(ctx, prefix, true); err != nil { // with its documents, which the text isn't one of
		t.Error(err)
	}
	if n, err := l.exists(ctx, text, hash); n != 1 || err != nil {
		t.Errorf("EXISTS after FT.DROPINDEX with DD: %d, %v", n, err)
	}
}

func testSearches(ctx context.Context, t *testing.T, l library, proto int, name string) {
	c := newCollection(name + ":")
	if err := l.create(ctx, name, c.prefix); err != nil {
		t.Fatal(err)
	}
	checkError(t, l.create(ctx, name, c.prefix), "Index already exists")
	if err := l.load(ctx, c.documents); err != nil {
		t.Fatal(err)
	}
	if err := l.set(ctx, c.prefix+"text", "a zip that is no hash"); err != nil { // and so isn't in the index
		t.Fatal(err)
	}
	search := func(t *testing.T, query string, how asked) answer {
		t.Helper()
		a, err := l.search(ctx, name, query, how)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.warnings) != 0 || (a.warnings != nil) != (proto == 3) {
			t.Errorf("warnings %q", a.warnings)
		}
		return a
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, index := range []struct{ attribute, metric string }{{"flat", "L2"}, {"hnsw", "COSINE"}, {"inner", "IP"}} {
		t.Run(index.metric, func(t *testing.T) {
			vector := make([]float32, 8)
			for i := range vector {
				vector[i] = float32(r.IntN(9)-4) + 0.5
			}
			near := c.nearest(index.metric, vector, 25)
			check := func(a answer, field string, want []nearDoc) {
				t.Helper()
				if a.total != len(near) {
					t.Errorf("a total of %d, want %d", a.total, len(near))
				}
				c.checkNear(t, index.metric, vector, field, a.docs, want)
			}

			// With no more said, the ten nearest of all 25 with all their fields.
			score := "__" + index.attribute + "_score"
			query := "*=>[KNN 25 @" + index.attribute + " $v]"
			a := search(t, query, asked{param: vectorBlob(vector)})
			check(a, score, near[:10])
			for _, doc := range a.docs {
				want := maps.Clone(c.documents[doc.id])
				want[score] = doc.fields[score]
				if !maps.Equal(doc.fields, want) {
					t.Errorf("%s: fields %q, want %q", doc.id, doc.fields, want)
				}
			}

			// Some fields, by other names, and a page of those sorted by distance, the farthest first.
			how := asked{
				param: vectorBlob(vector), sortBy: "far", descending: true, offset: 3, count: 7,
				returned: []returned{{"title", "t"}, {"far", "far"}, {index.attribute, "v"}, {"nope", "nope"}},
			}
			a = search(t, query[:len(query)-1]+" AS far]", how)
			farthest := slices.Clone(near)
			slices.SortStableFunc(farthest, func(a, b nearDoc) int { return cmp.Compare(b.distance, a.distance) })
			check(a, "far", farthest[3:10])
			for _, doc := range a.docs {
				d := c.documents[doc.id]
				want := map[string]string{"t": d["title"], "v": d["vec"], "far": doc.fields["far"]}
				if !maps.Equal(doc.fields, want) {
					t.Errorf("%s: fields %q, want %q", doc.id, doc.fields, want)
				}
			}

			// By another field.
			how.sortBy, how.descending, how.returned = "year", false, []returned{{"year", "year"}, {score, "far"}}
			a = search(t, query, how)
			byYear := slices.Clone(near)
			slices.SortStableFunc(byYear, func(a, b nearDoc) int {
				return strings.Compare(c.documents[a.id]["year"], c.documents[b.id]["year"])
			})
			if index.metric != "COSINE" { // where those of a year may come in either order
				check(a, "far", byYear[3:10])
			}

			// Nothing but the keys.
			a = search(t, query, asked{param: vectorBlob(vector), noContent: true, offset: 0, count: 100})
			for i := range a.docs {
				if len(a.docs[i].fields) > 0 {
					t.Errorf("%s: fields %q in spite of NOCONTENT", a.docs[i].id, a.docs[i].fields)
				}
				distance := distanceBy(index.metric, vector, c.vectors[a.docs[i].id])
				a.docs[i].fields = map[string]string{"far": fmt.Sprint(distance)}
			}
			check(a, "far", near)
		})
	}

	t.Run("texts", func(t *testing.T) {
		for query, part := range map[string]string{
			"@title:zip": "zip", "@title:*eade*": "eade", "@title:(archive)": "archive",
			`@title:"archive, number 1"`: "archive, number 1", "@title:Zip": "Zip",
			"@title:$v": "r, number 12", "*": "",
		} {
			want := c.matching(func(title string) bool { return strings.Contains(title, part) })
			how := asked{}
			if strings.Contains(query, "$v") {
				how.param = part
			}
			a := search(t, query, how)
			if got := idsOf(a.docs); a.total != len(want) || !slices.Equal(got, want[:min(10, len(want))]) {
				t.Errorf("%s: %d in all, %v; want %d, %v", query, a.total, got, len(want), want[:min(10, len(want))])
			}
			for _, doc := range a.docs {
				if !maps.Equal(doc.fields, c.documents[doc.id]) {
					t.Errorf("%s: %s: fields %q", query, doc.id, doc.fields)
				}
			}
		}
		want := c.matching(func(title string) bool { return strings.Contains(title, "reader") })
		slices.SortStableFunc(want, func(a, b string) int {
			return strings.Compare(c.documents[b]["year"], c.documents[a]["year"])
		})
		how := asked{
			param: "reader", sortBy: "year", descending: true, offset: 5, count: 20,
			returned: []returned{{"kind", "k"}},
		}
		a := search(t, "@title:$v", how)
		if got := idsOf(a.docs); !slices.Equal(got, want[5:25]) {
			t.Errorf("by year: %v, want %v", got, want[5:25])
		}
		for _, doc := range a.docs {
			if !maps.Equal(doc.fields, map[string]string{"k": c.documents[doc.id]["kind"]}) {
				t.Errorf("%s: fields %q, want its kind", doc.id, doc.fields)
			}
		}
		for _, test := range []struct {
			pattern string
			more    []any
			same    string // a pattern that finds the same without errors
		}{
			{"(zip|tar) archive, number [0-9]+5$", nil, ""},
			{"^a writer", []any{"LIMIT", 0, 1000}, ""},
			{"zap", nil, ""},
			{"buferred", []any{"K=2"}, "buffered"},
		} {
			re := regexp.MustCompile(cmp.Or(test.same, test.pattern))
			want := c.matching(re.MatchString)
			a, err := l.regex(ctx, name, "title", test.pattern, test.more...)
			if err != nil {
				t.Fatal(err)
			}
			page := want[:min(10, len(want))]
			if len(test.more) > 1 {
				page = want
			}
			if got := idsOf(a.docs); a.total != len(want) || !slices.Equal(got, page) {
				t.Errorf("%s: %d in all, %v; want %d, %v", test.pattern, a.total, got, len(want), page)
			}
			for _, doc := range a.docs {
				if want := map[string]string{"title": c.documents[doc.id]["title"]}; !maps.Equal(doc.fields, want) {
					t.Errorf("%s: %s: fields %q, want %q", test.pattern, doc.id, doc.fields, want)
				}
			}
		}
	})

	t.Run("index", func(t *testing.T) {
		want := wantedIndex(name, c.prefix)
		want.documents = len(c.documents)
		got, err := l.index(ctx, name)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("FT.INFO: %+v, %v; want %+v", got, err, want)
		}
		// Deleted documents are gone from it, and changed ones are found as they are now.
		near := c.nearest("L2", make([]float32, 8), 2)
		if n, err := l.del(ctx, near[0].id); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := l.hdel(ctx, near[1].id, "vec"); err != nil {
			t.Fatal(err)
		}
		zeros := vectorBlob(make([]float32, 8))
		if _, err := l.hset(ctx, c.prefix+"bare", map[string]string{"vec": zeros}); err != nil {
			t.Fatal(err)
		}
		a := search(t, "*=>[KNN 1 @flat $v]", asked{param: zeros})
		if len(a.docs) != 1 || a.docs[0].id != c.prefix+"bare" || a.docs[0].fields["__flat_score"] != "0" {
			t.Errorf("%q is nearest, want %sbare at 0", a.docs, c.prefix)
		}
		if got, err := l.index(ctx, name); err != nil || got.documents != want.documents-1 {
			t.Errorf("%d documents after one was deleted, %v; want %d", got.documents, err, want.documents-1)
		}

		// An index goes without its documents, and finds them when it comes again.
		if list, err := l.indexes(ctx); err != nil || !slices.Contains(list, name) {
			t.Errorf("FT._LIST: %q, %v; want %s", list, err, name)
		}
		if err := l.drop(ctx, name, false); err != nil {
			t.Fatal(err)
		}
		if list, err := l.indexes(ctx); err != nil || slices.Contains(list, name) {
			t.Errorf("FT._LIST after FT.DROPINDEX: %q, %v", list, err)
		}
		_, err = l.search(ctx, name, "*", asked{})
		checkError(t, err, "No such index "+name)
		if err := l.create(ctx, name, c.prefix); err != nil {
			t.Fatal(err)
		}
		if a := search(t, "*", asked{}); a.total != want.documents-1 {
			t.Errorf("%d documents in the index that is created again, want %d", a.total, want.documents-1)
		}
		checkError(t, l.drop(ctx, "nope", false), "Unknown Index name")
	})
}

// Where no replica lives an answer is partial, and says so: by each library, if its protocol has a place for that, in
// the log, and in SCATTER.LEDGER.
func TestPartialAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	core, logged := observer.New(zap.WarnLevel)
	cfg := config{
		listen: "127.0.0.1:0", http: "127.0.0.1:0", gossip: "127.0.0.1:0", data: t.TempDir(), replicas: 1,
		timeout: searchTime, clients: 100,
	}
	c, err := startCluster(ctx, cfg, 3, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	addr := c.proxy.server.addr()
	libraries := make(map[string]library)
	for _, proto := range []int{2, 3} {
		goClient := redis.NewClient(&redis.Options{
			Addr: addr, Protocol: proto, MaxRetries: -1, ContextTimeoutEnabled: true, ReadTimeout: time.Minute,
		})
		defer goClient.Close()
		ruClient, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{addr}, DisableCache: true, AlwaysRESP2: proto == 2, DisableRetry: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ruClient.Close()
		libraries[fmt.Sprint("go-redis, RESP", proto)] = goRedis{goClient}
		libraries[fmt.Sprint("rueidis, RESP", proto)] = ruEidis{ruClient}
	}
	l := libraries["go-redis, RESP3"]
	if err := l.create(ctx, "idx", "doc:"); err != nil {
		t.Fatal(err)
	}
	documents := make(map[string]map[string]string)
	var want []string // what is found when one node is dead
	dead := c.nodes[0]
	for i := range 60 {
		key := fmt.Sprintf("doc:%02d", i)
		documents[key] = map[string]string{"title": "some text"}
		if holders := c.proxy.view.Load().holders(userKey([]byte(key))); string(holders[0]) != dead.name {
			want = append(want, key)
		}
	}
	if err := l.load(ctx, documents); err != nil {
		t.Fatal(err)
	}
	how := asked{param: "text", noContent: true, count: 100}
	a, err := l.search(ctx, "idx", "@title:$v", how)
	if err != nil || a.total != len(documents) || len(a.warnings) > 0 {
		t.Fatalf("%d documents, warnings %q, %v", a.total, a.warnings, err)
	}
	if logged.Len() > 0 {
		t.Errorf("log: %v", logged.All())
	}

	dead.kill(t)
	for name, l := range libraries {
		for {
			a, err := l.search(ctx, "idx", "@title:$v", how)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			warned := len(a.warnings) == 1 && strings.HasPrefix(a.warnings[0], "Partial answer: ")
			if warned != strings.HasSuffix(name, "RESP3") {
				t.Errorf("%s: %d of %d documents, warnings %q", name, a.total, len(documents), a.warnings)
			}
			if slices.Equal(idsOf(a.docs), want) {
				break
			} // else another node wasn't quick enough: this machine has much to do
		}
	}
	if entries := logged.FilterMessage("partial answer").All(); len(entries) < len(libraries) {
		t.Errorf("%d entries in the log, want %d at least", len(entries), len(libraries))
	} else if fields := entries[0].ContextMap(); fmt.Sprint(fields["missing"]) == "[]" || fields["coverage"] == 1.0 {
		t.Errorf("log: %v", fields)
	}
	reply, err := l.do(ctx, "SCATTER.LEDGER", 1)
	if err != nil {
		t.Fatal(err)
	}
	ledger := reply.([]any)[0].(map[any]any)
	if coverage := ledger["coverage"].(float64); ledger["partial"] != int64(1) || ledger["hits"] != int64(len(want)) ||
		coverage <= 0 || coverage >= 1 || len(ledger["missing"].([]any)) == 0 {
		t.Errorf("SCATTER.LEDGER: %v", ledger)
	}
	for _, p := range ledger["peers"].([]any) {
		p := p.(map[any]any)
		if failed := p["peer"] == dead.name; failed != (p["error"] != "" || p["status"] == "Dead") {
			t.Errorf("SCATTER.LEDGER: %v", p)
		}
	}
	if facts, err := l.index(ctx, "idx"); err == nil {
		t.Errorf("FT.INFO counts %d documents, without those of a node that is dead", facts.documents)
	}

	// Nothing at all is no answer.
	c.nodes[1].kill(t)
	c.nodes[2].kill(t)
	for name, l := range libraries {
		_, err := l.search(ctx, "idx", "@title:$v", how)
		if !isNoQuorum(err) {
			t.Errorf("%s: %v, want NOQUORUM", name, err)
		}
	}
}

// peerCall is a request as nodes send them to each other.
func peerCall(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words)+1)
	for _, word := range append([]string{peerCommand}, words...) {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b.String()
}

// What isn't well-formed, or too large, gets an error reply or ends the connection, and nothing else comes of it,
// whichever node gets it.
func TestHostileInput(t *testing.T) {
	c, client := newTestCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := goRedis{client}
	if err := l.create(ctx, "idx", "doc:"); err != nil {
		t.Fatal(err)
	}
	vector := vectorBlob(make([]float32, 8))
	if _, err := l.hset(ctx, "doc:1", map[string]string{"title": "a title", "vec": vector}); err != nil {
		t.Fatal(err)
	}
	addrs := []string{c.proxy.server.addr()}
	for _, m := range c.proxy.view.Load().members {
		if string(m.name) == c.nodes[0].name {
			addrs = append(addrs, m.addr)
		}
	}
	if len(addrs) != 2 {
		t.Fatal(c.proxy.view.Load().members)
	}

	t.Run("bytes", func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		noise := make([]byte, 200<<10)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		for _, test := range []struct{ input, want string }{ // the beginning of the reply; "": an error, or none
			{"*-5\r\n", "-ERR Protocol error: invalid multibulk length"},
			{"*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length"},
			{"*1048577\r\n", "-ERR Protocol error: invalid multibulk length"},
			{"*1048576\r\n$4\r\nPING\r\n", ""}, // and then nothing
			{"*1\n$4\nPING\n", "-ERR Protocol error: invalid multibulk length"},
			{"*x\r\n", "-ERR Protocol error: invalid multibulk length"},
			{"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"},
			{"*1\r\n$+\r\n", "-ERR Protocol error: invalid bulk length"},
			{"*1\r\n$99999999999\r\n", "-ERR Protocol error: too big a command"},
			{"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$67108864\r\n", "-ERR Protocol error: too big a command"},
			{"*1\r\n$000000000000000000000000000000000000004\r\nPING\r\n", "-ERR Protocol error: invalid bulk length"},
			{"*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'"},
			{"*1\r\n*1\r\n$4\r\nPING\r\n", "-ERR Protocol error: expected '$', got '*'"},
			{"*1\r\n$4\r\nPINGPONG\r\n", ""},
			{"*2\r\n$3\r\nGET\r\n", ""},
			{"*2\r\n$3\r\nGET\r\n$1000\r\nabc", ""},
			{"PING\r\n", "+PONG"}, // a command may be a line of text
			{"nope\r\n", "-ERR unknown command 'nope'"},
			{"\r\n\r\nnope\r\n", "-ERR unknown command 'nope'"},
			{"SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request"},
			{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "-ERR wrong number of arguments for 'get' command"},
			{strings.Repeat("a", 70<<10), "-ERR Protocol error: too big inline request"},
			{strings.Repeat("a b ", 70<<10) + "\r\n", "-ERR Protocol error: too big inline request"},
			{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""}, // as TLS begins
			{string(noise[:10<<10]), ""},
			{string(noise), ""},
			{"*" + string(noise), ""},
			{"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9" + string(noise), ""},

			{peerCall(), "*3\r\n$1\r\n0\r\n$3\r\nERR"},
			{peerCall("x", opRead, "0"), "*3\r\n$1\r\n0\r\n$3\r\nERR"},
			{peerCall("7", opRead, "-1"), "*3\r\n$1\r\n0\r\n$3\r\nERR"},
			{peerCall("7", strings.Repeat("a", 1000), "0"), "*3\r\n$1\r\n0\r\n$3\r\nERR"},
			{peerCall("7", "nope", "0"), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opApply, "0"), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opApply, "0", "", ""), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opApply, "0", "xkey", ""), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opApply, "0", "dkey", string(noise[:1000])), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opRead, "0", ""), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opSince, "0", "", "x", "y"), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opSearch, "0", string(noise[:1000])), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opSearch, "0"), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opCount, "0", "nope"), "*3\r\n$1\r\n7\r\n$3\r\nERR"},
			{peerCall("7", opRead, "0", "dkey") + "PING\r\n", ""},
		} {
			for _, addr := range addrs {
				reply, err := sendBytes(ctx, addr, test.input)
				if err != nil || !strings.HasPrefix(reply, test.want) ||
					test.want == "" && reply != "" && !strings.HasPrefix(reply, "-") && !strings.HasPrefix(reply, "*") {
					t.Errorf("%s: %.80q: reply %.200q, %v; want %q", addr, test.input, reply, err, test.want)
				}
				if reply, err := sendBytes(ctx, addr, "PING\r\n"); reply != "+PONG\r\n" || err != nil {
					t.Fatalf("%s: PING after %.80q: %q, %v", addr, test.input, reply, err)
				}
			}
		}
	})

	t.Run("commands", func(t *testing.T) {
		knn := func(query string, more ...any) []any {
			return append([]any{"FT.SEARCH", "idx", query, "PARAMS", 2, "v", vector}, more...)
		}
		attributes := func(n int) []any {
			words := []any{"FT.CREATE", "other", "SCHEMA"}
			for i := range n {
				words = append(words, i, "TAG")
			}
			return words
		}
		const most = "1000000000000000000"
		for _, words := range [][]any{
			knn("*=>[KNN " + most + " @flat $v]"), knn("*=>[KNN 10001 @flat $v]"), knn("*=>[KNN 0 @flat $v]"),
			knn("*=>[KNN -1 @flat $v]"), knn("*=>[KNN 1e3 @flat $v]"), knn("*=>[KNN $v @flat $v]"),
			knn("*=>[KNN 1 @hnsw $v EF_RUNTIME " + most + "]"), knn("*=>[KNN 1 @hnsw $v]"), // zeros have no cosine
			knn("*", "LIMIT", -1, 10), knn("*", "LIMIT", 0, -1), knn("*", "LIMIT", 0, most), knn("*", "LIMIT", most, 1),
			knn("*", "RETURN", most), knn("*", "RETURN", -1, "a"), knn("*", "TIMEOUT", -1), knn("*", "TIMEOUT", most),
			knn("*", "DIALECT", 99), knn("*", "PARAMS", 2, "w", "x"),
			{"FT.SEARCH", "idx", "*", "PARAMS", most, "a", "b"}, {"FT.SEARCH", "idx", "*", "PARAMS", 3, "a", "b", "c"},
			{"FT.SEARCH", "idx", "*=>[KNN 1 @flat $v]", "PARAMS", 2, "v", strings.Repeat("a", 16<<20)},
			{"FT.SEARCH", "idx", "*=>[KNN 1 @flat $v]", "PARAMS", 2, "v", strings.Repeat("\xff", 32)}, // no numbers
			knn(strings.Repeat("(", 1<<20)), knn(strings.Repeat("(", 1<<20) + "*" + strings.Repeat(")", 1<<19)),
			knn(strings.Repeat("@title:a ", 1<<17)), knn(strings.Repeat("*=>", 1<<18)), knn(strings.Repeat(`\`, 1<<20)),
			knn(`@title:"` + strings.Repeat(`\"`, 1<<19)), knn("\x00\xff"), knn(""), knn("@"), knn("*=>"),
			knn("*=>[KNN"),
			{"FT.REGEX", "idx", "title", "("}, {"FT.REGEX", "idx", "title", strings.Repeat("(", 1<<20)},
			{"FT.REGEX", "idx", "title", strings.Repeat("(a*", 1000) + strings.Repeat(")*", 1000)},
			{"FT.REGEX", "idx", "title", "((a{100}){100}){100}"}, {"FT.REGEX", "idx", "title", "\xff"},
			{"FT.REGEX", "idx", "title", "a", "K=" + most},
			{"FT.REGEX", "idx", "title", strings.Repeat("a", 1<<20), "K=3"},
			{"FT.CREATE", "other", "SCHEMA", "v", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DISTANCE_METRIC", "L2",
				"DIM", most},
			{"FT.CREATE", "other", "SCHEMA", "v", "VECTOR", "FLAT", most, "TYPE", "FLOAT32"},
			{"FT.CREATE", "other", "PREFIX", most, "a", "SCHEMA", "a", "TEXT"}, {"FT.CREATE", "other", "PREFIX", -1},
			{"FT.CREATE", "other", "SCHEMA", "a\xff", "TEXT"}, attributes(1025), attributes(100_000),
			{"HELLO", most}, {"HELLO", "99999999999999999999"}, {"HELLO", 3, "AUTH"},
			{"SELECT", -1}, {"SELECT", most + most},
			{"SCATTER.LEDGER", -1}, {"SCATTER.LEDGER", most + most}, {"COMMAND", strings.Repeat("a", 1<<20)},
			{strings.Repeat("a", 1<<20), "b"}, {"nope", strings.Repeat("\r\n", 1<<10)}, {"\r\n+OK\r\n"}, {""},
		} {
			_, err := l.do(ctx, words...)
			var reply redis.Error // from the node, not of the connection
			if !errors.As(err, &reply) || isNoQuorum(err) || strings.Contains(err.Error(), "internal") {
				t.Errorf("%.200q: %.200q, want an error", fmt.Sprint(words), fmt.Sprint(err))
			}
		}
	})

	t.Run("much", func(t *testing.T) { // but not too much
		fields := make(map[string]string)
		keys := []string{"much"}
		for i := range 10_000 {
			fields[fmt.Sprint("field", i)] = fmt.Sprint(i)
			keys = append(keys, fmt.Sprint("nothing", i))
		}
		slowly := func(do func() error) error { // as often as it takes a machine that has much to do
			for {
				if err := do(); !isNoQuorum(err) || ctx.Err() != nil {
					return err
				}
			}
		}
		if err := slowly(func() error { _, err := l.hset(ctx, "much", fields); return err }); err != nil {
			t.Errorf("HSET: %v", err)
		}
		if got, err := l.hgetall(ctx, "much"); !maps.Equal(got, fields) || err != nil {
			t.Errorf("HGETALL: %d fields, %v", len(got), err)
		}
		if n, err := l.exists(ctx, keys...); n != 1 || err != nil {
			t.Errorf("EXISTS: %d, %v", n, err)
		}
		value := strings.Repeat("\x00\xff", 1<<20)
		key := value[:4_000]
		if err := slowly(func() error { return l.set(ctx, key, value) }); err != nil {
			t.Errorf("SET: %v", err)
		}
		if got, err := l.get(ctx, key); got != value || err != nil {
			t.Errorf("GET: %d bytes, %v", len(got), err)
		}
	})

	for _, p := range c.nodes {
		select {
		case <-p.done:
			t.Errorf("%s has ended: %v", p.name, p.err)
		default:
		}
	}
	a, err := l.search(ctx, "idx", "*=>[KNN 1 @flat $v]", asked{param: vector})
	if err != nil || a.total != 1 || len(a.warnings) > 0 || a.docs[0].fields["title"] != "a title" {
		t.Errorf("a search at the end: %+v, %v", a, err)
	}
}

// sendBytes sends something on a new connection, without more to come, and returns the first of what comes back.
func sendBytes(ctx context.Context, addr, input string) (reply string, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, input); err == nil { // else the other end has had enough of it already
		conn.(*net.TCPConn).CloseWrite()
	}
	b := make([]byte, 1<<10)
	n, err := bufio.NewReader(conn).Read(b)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	_ = err // that it was closed or reset is as well
	return string(b[:n]), nil
}

// One connection too many is told so, and no more than that. When another is closed there is room again.
func TestTooManyConnections(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := startNode(config{
		listen: "127.0.0.1:0", http: "127.0.0.1:0", gossip: "127.0.0.1:0", data: t.TempDir(), name: "alone",
		replicas: 1, tokens: 1, timeout: searchTime, clients: 3,
	}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(ctx)
	connect := func() net.Conn {
		conn, err := net.Dial("tcp", n.server.addr())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	var conns []net.Conn
	for range 3 {
		conn := connect()
		defer conn.Close()
		conns = append(conns, conn)
		io.WriteString(conn, "PING\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "+PONG\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	const tooMany = "-ERR max number of clients reached\r\n"
	conn := connect()
	defer conn.Close()
	if reply, err := io.ReadAll(conn); string(reply) != tooMany || err != nil {
		t.Errorf("%q, %v; want %q", reply, err, tooMany)
	}
	conns[0].Close()
	for {
		reply, err := sendBytes(ctx, n.server.addr(), "PING\r\n")
		if reply == "+PONG\r\n" {
			return
		}
		if reply != tooMany && reply != "" || err != nil { // it is closed at once, which may outrun its reply
			t.Fatalf("%q, %v", reply, err)
		}
	}
}
