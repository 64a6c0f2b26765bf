package main

import (
	"math/rand/v2"
)

// load is what the clients ask: the keys of the checks, their paths, and the expected answer.
type load struct {
	keys keySet
	// callers is the number of keys in use, spread evenly over the set: the callers of an hour among all customers.
	callers int
	forge   func(dst []byte, rnd *rand.Rand) []byte // appends a key that is not in the set; nil: keys of the set are used
	reason  string                                  // of the expected denial; empty: every check should be allowed

	targets      []target
	headersAsMap bool // Envoy's default, and what policies for OPA's Envoy plugin read; else a list, as with our configuration
}

// loadOf uses a number of the keys of a set, for requests of a few paths.
func loadOf(keys keySet, callers int) load {
	return load{keys: keys, callers: min(callers, keys.len()), targets: fewPaths}
}

// to is the load for other requests.
func (l load) to(targets []target) load {
	l.targets = targets
	return l
}

// mapped is the load with headers as a map.
func (l load) mapped() load {
	l.headersAsMap = true
	return l
}

// requests makes a check for each target.
func (l *load) requests() ([]*wireRequest, error) {
	all := make([]*wireRequest, len(l.targets))
	for i, t := range l.targets {
		var err error
		if all[i], err = newWireRequest(t, l.headersAsMap); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// nth is the key of a caller.
func (l *load) nth(i int) []byte { return l.keys.text(i * (l.keys.len() / l.callers)) }

// next is the key of the next check. It may be written into buf.
func (l *load) next(buf []byte, rnd *rand.Rand) []byte {
	if l.forge != nil {
		return l.forge(buf[:0], rnd)
	}
	return l.nth(rnd.IntN(l.callers))
}

// unknownKey appends a well-formed key that no account has.
func unknownKey(dst []byte, rnd *rand.Rand) []byte { return appendKey(dst, 1<<63|rnd.Uint64()) }

// garbageKey appends a key with a wrong checksum.
func garbageKey(dst []byte, rnd *rand.Rand) []byte {
	dst = appendKey(dst, 1<<63|rnd.Uint64())
	last := &dst[len(dst)-1]
	if *last == '0' {
		*last = '1'
	} else {
		*last = '0'
	}
	return dst
}
