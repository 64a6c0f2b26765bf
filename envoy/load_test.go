package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load is a number of clients that send requests, each to a path of its own, until they are stopped.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64

	mu       sync.Mutex
	outcomes []outcome
	statuses map[int]int // how many answers had each status; 0: no answer
}

// outcome is a request of a load and its answer.
type outcome struct {
	path         string
	began, ended time.Time
	status       int
	reason       string
}

// underLoad starts n clients that send a header field with every request.
func (s *stack) underLoad(n int, field, value string) *load {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{cancel: cancel, statuses: make(map[int]int)}
	s.t.Cleanup(func() { l.stop() })
	client := httpClient(s.t, false)
	for range n {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				o := outcome{path: fmt.Sprintf("/load/%d", l.sent.Add(1)), began: time.Now()}
				var err error
				if o.status, o.reason, err = fetch(client, "http://"+s.addr+o.path, field, value); err != nil && ctx.Err() == nil {
					s.t.Errorf("%s: %v", o.path, err)
				}
				o.ended = time.Now()
				l.mu.Lock()
				l.outcomes = append(l.outcomes, o)
				l.statuses[o.status]++
				l.mu.Unlock()
			}
		})
	}
	return l
}

// fetch has no context: a request that is sent is answered, so that its outcome is known.
func fetch(client *http.Client, url, field, value string) (status int, reason string, err error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set(field, value)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Authz-Reason"), errors.Join(err, resp.Body.Close())
}

// count returns the number of answers so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.outcomes)
}

// answered returns how many answers had a status.
func (l *load) answered(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statuses[status]
}

// stop ends the clients, waits for their answers, and returns how many had each status.
func (l *load) stop() map[int]int {
	l.cancel()
	l.wg.Wait()
	return l.statuses
}
