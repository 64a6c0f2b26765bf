package main

import (
	"math/rand/v2"
)

// load is which keys an authorizer is asked about, and what it has to say of them.
type load struct {
	keys keySet
	// callers is how many of the keys are asked about, spread evenly over the set, however many there are: those of an
	// hour's callers among all customers.
	callers int
	forge   func(dst []byte, rnd *rand.Rand) []byte // makes a key that nobody has; nil: keys of the set are asked about
	reason  string                                  // of the denial; empty: everything is to be allowed
}

// loadOf asks about a set of keys, whose number is given.
func loadOf(keys keySet, callers int) load {
	return load{keys: keys, callers: min(callers, keys.len())}
}

// nth is one of the callers' keys.
func (l *load) nth(i int) []byte { return l.keys.text(i * (l.keys.len() / l.callers)) }

// next is a key to ask about. It may be written into buf.
func (l *load) next(buf []byte, rnd *rand.Rand) []byte {
	if l.forge != nil {
		return l.forge(buf[:0], rnd)
	}
	return l.nth(rnd.IntN(l.callers))
}

// unknownKey is a key of the right form, checksum included, that nobody was given.
func unknownKey(dst []byte, rnd *rand.Rand) []byte { return appendKey(dst, 1<<63|rnd.Uint64()) }

// garbageKey is as long as a key, and wrong.
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
