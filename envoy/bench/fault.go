package main

import "math/rand/v2"

// fault is why a check should be denied.
type fault struct {
	reason string
	guard  bool                                                   // only where the route wants a scope
	key    func(dst []byte, p *population, rnd *rand.Rand) []byte // appends the key of such a check
}

var (
	unknown = fault{reason: "key_unknown", key: func(dst []byte, _ *population, rnd *rand.Rand) []byte { return unknownKey(dst, rnd) }}
	garbage = fault{reason: "key_malformed", key: func(dst []byte, _ *population, rnd *rand.Rand) []byte { return garbageKey(dst, rnd) }}
	revoked = fault{reason: "key_revoked", key: func(dst []byte, p *population, rnd *rand.Rand) []byte {
		return append(dst, p.keys.text(p.callers()+rnd.IntN(p.revoked))...)
	}}
	narrow = fault{reason: "permission_denied", guard: true, key: func(dst []byte, p *population, rnd *rand.Rand) []byte {
		return append(dst, p.keys.text(p.callers()+p.revoked+rnd.IntN(p.narrow))...)
	}}
)

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
