package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// asker draws checks from a load. Every seed draws others, so that neither callers nor ids come in a cycle, and the rivals of a
// round get the same ones. It is not safe for concurrent use.
type asker struct {
	load *load
	rnd  *rand.Rand
	// caller and user draw the number of a key and of a token.
	caller, user func() int
	// Checks with a key, those of them whose route wants a scope, and checks with a token.
	keyed, guarded, bearing []*wireRequest
	buf                     []byte
}

// seed is where a series of checks begins: one for each loop of a turn.
type seed struct{ turn, loop uint64 }

func (l *load) asker(s seed) (*asker, error) {
	a := &asker{load: l, rnd: rand.New(rand.NewPCG(s.turn, s.loop)), buf: make([]byte, 0, keyLen)}
	for _, t := range l.targets {
		q, err := newWireRequest(t, apiKey, l.headersAsMap)
		if err != nil {
			return nil, err
		}
		a.keyed = append(a.keyed, q)
		if t.guarded {
			a.guarded = append(a.guarded, q)
		}
		if l.bearing == 0 {
			continue
		}
		if q, err = newWireRequest(t, bearer(l.tokens), l.headersAsMap); err != nil {
			return nil, err
		}
		a.bearing = append(a.bearing, q)
	}
	for _, f := range l.faults {
		if f.guard && len(a.guarded) == 0 {
			return nil, fmt.Errorf("no route of the load denies with %s", f.reason)
		}
	}
	a.caller = a.draw(l.callers)
	if l.bearing > 0 {
		a.user = a.draw(l.tokens.len())
	}
	return a, nil
}

// draw makes a function that draws numbers below n, as the callers of the load are distributed.
func (a *asker) draw(n int) func() int {
	if a.load.skew == 0 || n < 2 {
		return func() int { return a.rnd.IntN(max(1, n)) }
	}
	z := rand.NewZipf(a.rnd, a.load.skew, 1, uint64(n-1))
	return func() int { return int(z.Uint64()) }
}

// next draws a check, and makes it one that Envoy sends at that time. It is good until the next one is drawn. The reason is that of
// the denial that should be the answer, "" if it should be an allow.
func (a *asker) next(now time.Time) (q *wireRequest, reason string) {
	l, requests := a.load, a.keyed
	var credential []byte
	switch share := a.rnd.Float64(); {
	case share < l.denied:
		f := l.faults[a.rnd.IntN(len(l.faults))]
		if f.guard {
			requests = a.guarded
		}
		credential, reason = f.key(a.buf[:0], l.people, a.rnd), f.reason
	case share < l.denied+l.bearing:
		requests, credential = a.bearing, l.tokens.text(a.user())
	default:
		credential = a.key()
	}
	q = requests[a.rnd.IntN(len(requests))]
	q.renew(a.rnd, now, credential)
	return q, reason
}

// key draws the key of a caller.
func (a *asker) key() []byte { return a.load.nth(a.caller()) }

// of is a check of the nth caller.
func (a *asker) of(n int, now time.Time) *wireRequest {
	q := a.keyed[a.rnd.IntN(len(a.keyed))]
	q.renew(a.rnd, now, a.load.nth(n))
	return q
}
