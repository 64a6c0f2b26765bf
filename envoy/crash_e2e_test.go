package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// load is clients that send requests, each to a path of its own, until they are stopped.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64

	mu     sync.Mutex
	status map[string]int // by path; 0: no answer
}

// underLoad starts n clients with that key.
func (s *stack) underLoad(n int, key string) *load {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{cancel: cancel, status: make(map[string]int)}
	s.t.Cleanup(func() { l.stop() })
	client := httpClient(s.t, false)
	for range n {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				path := fmt.Sprintf("/load/%d", l.sent.Add(1))
				status, err := fetch(client, "http://"+s.addr+path, key)
				if err != nil && ctx.Err() == nil {
					s.t.Errorf("%s: %v", path, err)
				}
				l.mu.Lock()
				l.status[path] = status
				l.mu.Unlock()
			}
		})
	}
	return l
}

// fetch does not stop in the middle: a request that is sent is answered, so that it is known what became of it.
func fetch(client *http.Client, url, key string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("x-api-key", key)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// count returns how many requests were sent.
func (l *load) count() int64 { return l.sent.Load() }

// answered returns how many answers had that status.
func (l *load) answered(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, got := range l.status {
		if got == status {
			n++
		}
	}
	return n
}

// stop ends the clients and returns how many answers had each status.
func (l *load) stop() map[int]int {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[int]int)
	for _, status := range l.status {
		out[status]++
	}
	return out
}

func TestCrash_LosesAndLeaksNothing(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	revoked := s.key("acme")
	load := s.underLoad(8, key.Text)
	await(t, func() bool { return load.answered(http.StatusOK) > 200 })

	// What is acknowledged just before the crash has to be there after it.
	s.cli(nil, "key", "revoke", revoked.ID)
	latest := s.customer("latest", "three")
	s.tk.Kill()
	mark := load.answered(http.StatusServiceUnavailable)
	await(t, func() bool { return load.answered(http.StatusServiceUnavailable) > mark+100 })
	before := s.Count()
	await(t, func() bool { return load.answered(http.StatusServiceUnavailable) > mark+300 })
	if during := s.Count() - before; during != 0 {
		t.Errorf("%d requests reached the upstream while nobody was there to allow them", during)
	}
	if err := s.tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mark = load.answered(http.StatusOK)
	await(t, func() bool { return load.answered(http.StatusOK) > mark+200 })
	statuses := load.stop()

	for status := range statuses {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("%d requests got status %d", statuses[status], status)
		}
	}
	for path, n := range s.paths() {
		if load.status[path] != http.StatusOK || n != 1 {
			t.Errorf("%s reached the upstream %d times, and its client got status %d", path, n, load.status[path])
		}
	}
	// A stop in good order gives back what this run has in hand. What is then still out is what the crash took.
	if err := errors.Join(s.tk.Stop(), s.tk.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	b := s.balance("acme", "monthly")
	charged := b.Spent + b.Stranded
	for _, units := range b.Outstanding {
		charged += units
	}
	if allowed := int64(statuses[http.StatusOK]); charged < allowed {
		t.Errorf("%d requests were allowed and only %d charged: %+v", allowed, charged, b)
	}
	if r := s.get("/", latest.Text); r.StatusCode != http.StatusOK {
		t.Errorf("the key made before the crash: %d %s", r.StatusCode, r.body)
	}
	s.Reset()
	s.wantDenial(s.get("/", revoked.Text), http.StatusForbidden, "key_revoked")
}
