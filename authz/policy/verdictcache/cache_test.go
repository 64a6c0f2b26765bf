package verdictcache

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// fullVerdict has a part of message in every field that can hold text.
func fullVerdict(message string) authz.Verdict {
	part := func(i int) string { return message[i : i+8] }
	body := part(0)
	headers := authz.Headers{{Name: part(1), Value: part(2)}}
	return authz.Verdict{
		Status: 402, Reason: authz.Reason(part(3)), Detail: part(4), Body: &body, Headers: headers, ResponseHeaders: headers,
		RemoveRequestHeaders: []string{part(5)}, SetQueryParameters: headers, RemoveQueryParameters: []string{part(6)},
		Metadata: map[string]any{part(7): []any{part(8), map[string]any{part(9): json.Number(part(10))}, nil, true, 1.5}},
		Charge:   authz.Charge{part(11): 1},
	}
}

func TestCache_ReturnsWhatWasPut(t *testing.T) {
	c := New(10)
	want := fullVerdict("some message from a caller")
	c.Put([]byte("a"), want)
	if got, ok := c.Get([]byte("a")); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := c.Get([]byte("b")); ok {
		t.Error("a verdict for another key")
	}
	c.Bypass()
	if s := c.Stats(); s != (Stats{Hits: 1, Misses: 1, Bypasses: 1, Size: 1}) {
		t.Errorf("%+v", s)
	}
}

// TestCache_ComparesTheWholeKey puts an entry where another key is looked up, as if their digests were equal.
func TestCache_ComparesTheWholeKey(t *testing.T) {
	c := New(10)
	c.verdicts.Set(c.digest([]byte("b")), &entry{key: "a", verdict: authz.Verdict{Allowed: true}})
	if v, ok := c.Get([]byte("b")); ok || v.Allowed {
		t.Errorf("got %+v of another key", v)
	}
}

// TestCache_KeepsNoRequestInMemory puts verdicts with small parts of messages of a megabyte.
func TestCache_KeepsNoRequestInMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	c := New(20_000)
	before := heap()
	for i := range 200 {
		c.Put(fmt.Append(nil, i), fullVerdict(fmt.Sprint("a message of the number ", i)+strings.Repeat("m", 1<<20)))
	}
	if s, grown := c.Stats(), heap()-before; s.Size < 150 || grown > 16<<20 {
		t.Errorf("%d verdicts on messages of 1 MiB keep %d KiB", s.Size, grown>>10)
	}
	runtime.KeepAlive(c)
}

func TestCache_BoundedInBytes(t *testing.T) {
	c := New(20_000)
	long := strings.Repeat("x", 50<<10)
	for i := range 2000 {
		c.Put(fmt.Append(nil, i), authz.Verdict{Detail: long})
	}
	c.verdicts.CleanUp()
	total := 0
	for _, e := range c.verdicts.All() {
		total += e.size
	}
	if total > MaxBytes || total < MaxBytes/2 {
		t.Errorf("%d verdicts take %d bytes, want up to %d", c.Stats().Size, total, MaxBytes)
	}
	large := New(10)
	large.Put([]byte("a"), authz.Verdict{Detail: strings.Repeat("x", MaxVerdict)})
	if s := large.Stats(); s.Size != 0 || s.Bypasses != 1 {
		t.Errorf("a verdict of more than %d bytes: %+v", MaxVerdict, s)
	}
}

// TestCache_FloodDoesNotEvictTheHonest asks for a few verdicts again and again, and once each for very many.
func TestCache_FloodDoesNotEvictTheHonest(t *testing.T) {
	const size, honest = 1000, 500
	c := New(size)
	ask := func(key string) bool {
		if _, ok := c.Get([]byte(key)); ok {
			return true
		}
		c.Put([]byte(key), authz.Verdict{Allowed: true})
		return false
	}
	for range 20 {
		for i := range honest {
			ask(fmt.Sprint("/honest/", i))
		}
	}
	hits, asked := 0, 0
	for i := range 50_000 {
		ask(fmt.Sprint("/flood/", i))
		if i%10 == 0 {
			asked++
			if ask(fmt.Sprint("/honest/", i/10%honest)) {
				hits++
			}
		}
	}
	share := float64(hits) / float64(asked)
	t.Logf("%.1f %% of the honest requests hit during the flood", 100*share)
	if share < 0.25 { // a cache that keeps what was asked last would have none
		t.Errorf("%.1f %% of the honest requests hit during the flood", 100*share)
	}
	if s := c.Stats(); s.Size > 2*size { // it makes room a little later than it has to
		t.Errorf("%+v", s)
	}
}
