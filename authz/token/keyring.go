package token

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// keyring keeps the keys of one issuer up to date. It fetches them in the background at intervals, and once more when a
// token names an unknown key. After a failed fetch it keeps the keys that it has.
type keyring struct {
	issuer  string
	source  func(ctx context.Context) ([]byte, error)
	timing  Timing
	now     func() time.Time
	log     *slog.Logger
	changed func()                          // called after the keys changed
	spawn   func(func(ctx context.Context)) // runs a fetch in the background
	set     atomic.Pointer[keySet]
	fault   atomic.Pointer[string] // of the last fetch; nil: it succeeded

	mu       sync.Mutex
	flight   chan struct{} // closed when the running fetch ends; nil: no fetch is running
	missedAt time.Time     // when an unknown key last caused a fetch
}

// current returns the keys, or nil if there are none or they are older than MaxAge.
func (r *keyring) current() *keySet {
	if s := r.set.Load(); s != nil && r.now().Sub(s.at) <= r.timing.MaxAge {
		return s
	}
	return nil
}

// start starts a fetch unless one is running, and returns a channel that is closed when it ends.
func (r *keyring) start() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.startLocked()
}

func (r *keyring) startLocked() <-chan struct{} {
	if r.flight == nil {
		done := make(chan struct{})
		r.flight = done
		r.spawn(func(ctx context.Context) {
			r.fetch(ctx)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flight = nil
			close(done)
		})
	}
	return r.flight
}

// fetchMissing fetches the keys after a token named an unknown one, at most once in a MissInterval, and waits for the fetch. It
// reports whether the set was replaced.
func (r *keyring) fetchMissing(ctx context.Context, had *keySet) bool {
	r.mu.Lock()
	var done <-chan struct{}
	switch now := r.now(); {
	case r.flight != nil:
		done = r.flight
	case r.missedAt.IsZero() || now.Sub(r.missedAt) >= r.timing.MissInterval:
		r.missedAt = now
		done = r.startLocked()
	}
	r.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return r.set.Load() != had
}

// fetch fetches the keys once.
func (r *keyring) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	raw, err := r.source(ctx)
	var keys []key
	var faulty []string
	if err == nil {
		keys, faulty, err = parseKeys(raw)
	}
	if err != nil {
		text := err.Error()
		if old := r.fault.Swap(&text); old == nil || *old != text { // a repeated fault is logged once
			r.log.Error("cannot fetch the keys of an issuer", "issuer", r.issuer, "error", text)
		}
		return
	}
	if r.fault.Swap(nil) != nil {
		r.log.Info("the keys of an issuer can be fetched again", "issuer", r.issuer)
	}
	old := r.set.Load()
	if len(faulty) > 0 && (old == nil || !slices.Equal(old.faulty, faulty)) {
		r.log.Warn("some keys of an issuer cannot be used",
			"issuer", r.issuer, "keys", len(keys), "unusable", len(faulty), "why", firstFew(faulty))
	}
	if old != nil && old.equal(keys) {
		r.set.Store(&keySet{keys: old.keys, faulty: faulty, at: r.now()})
		return
	}
	r.set.Store(&keySet{keys: keys, faulty: faulty, at: r.now()})
	r.changed()
	r.log.Info("the keys of an issuer have changed", "issuer", r.issuer, "keys", len(keys))
}

// retryAfterFault is how soon a failed fetch is repeated.
const retryAfterFault = 5 * time.Second

// refreshLoop fetches the keys at intervals until the context ends.
func (r *keyring) refreshLoop(ctx context.Context) {
	for {
		select {
		case <-r.start():
		case <-ctx.Done():
			return
		}
		wait := r.timing.Refresh
		if r.fault.Load() != nil {
			wait = min(wait, retryAfterFault)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}
