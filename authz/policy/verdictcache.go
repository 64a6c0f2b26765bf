package policy

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/maypok86/otter/v2"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// memo remembers verdicts by the values that the policy reads of the input. It belongs to one revision and ends with it.
//
// That a hit is the answer which the policy would give again rests on two things. The evaluator is given what the key is
// made of and nothing else, by the same code (object). And a verdict is kept only if nothing was asked on the way to it
// whose answer may be another one next time: OPA notes every call of a function that it knows to be nondeterministic, and
// a policy that names one which OPA does not know to be is not remembered at all (unsteady). An evaluation in which no
// such call was made makes none the next time either.
//
// It is bounded in bytes, for callers choose what verdicts hold. Whatever it keeps is a copy: a text that is part of a request
// would keep the whole message in memory. What it holds is used often: a stream of requests that are
// all different does not drive out what is asked for again and again.
type verdictCache struct {
	seeds    [2]maphash.Seed
	verdicts *otter.Cache[digest, *remembered]
	keys     sync.Pool // of *key

	hits, misses, bypasses *xsync.Counter
}

// digest finds a remembered verdict. The whole key is compared as well.
type digest [2]uint64

type remembered struct {
	key     string
	verdict authz.Verdict
	size    int
}

const (
	// VerdictCacheBytes is how much memory remembered verdicts may take, by the sizes of what they hold.
	VerdictCacheBytes = 64 << 20
	// weightBytes is about what a small verdict takes.
	weightBytes = 1 << 10
	// maxVerdict is the largest verdict that is remembered, with its key.
	maxVerdict = 64 << 10
)

func newVerdictCache(size int) *verdictCache {
	return &verdictCache{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		verdicts: otter.Must(&otter.Options[digest, *remembered]{
			// In weights, and not in bytes: the cache has a counter for every unit of its maximum.
			MaximumWeight: VerdictCacheBytes / weightBytes,
			// None weighs less than its share, so that there are never more than that many.
			Weigher: func(_ digest, v *remembered) uint32 {
				return uint32(max((v.size+weightBytes-1)/weightBytes, VerdictCacheBytes/weightBytes/size))
			},
		}),
		keys: sync.Pool{New: func() any { return &key{buf: make([]byte, 0, 512)} }},
		hits: xsync.NewCounter(), misses: xsync.NewCounter(), bypasses: xsync.NewCounter(),
	}
}

// keyOf makes the key of an input, nil if it has none. Give it back by done.
func (c *verdictCache) keyOf(want *inputRefs, r *authz.Request, f *authz.Facts) *key {
	k := c.keys.Get().(*key)
	k.reset()
	if err := keyOf(k, want, r, f); err != nil || k.over {
		c.bypasses.Inc()
		c.done(k)
		return nil
	}
	return k
}

func (c *verdictCache) done(k *key) { c.keys.Put(k) }

func (c *verdictCache) digest(k *key) digest {
	return digest{maphash.Bytes(c.seeds[0], k.buf), maphash.Bytes(c.seeds[1], k.buf)}
}

func (c *verdictCache) get(k *key) (authz.Verdict, bool) {
	v, ok := c.verdicts.GetIfPresent(c.digest(k))
	if !ok || v.key != string(k.buf) {
		c.misses.Inc()
		return authz.Verdict{}, false
	}
	c.hits.Inc()
	return v.verdict, true
}

// put remembers a copy of a verdict, unless it is large.
func (c *verdictCache) put(k *key, v authz.Verdict) {
	var copied copier
	kept := &remembered{key: string(k.buf), verdict: copied.verdict(v)}
	if kept.size = copied.size + len(kept.key); kept.size > maxVerdict {
		c.bypasses.Inc()
		return
	}
	c.verdicts.Set(c.digest(k), kept)
}

// CacheStats is how the memo of a policy does. Bypasses are decisions that were not remembered, because something was
// asked whose answer may change, or because the policy read too much.
type CacheStats struct {
	Hits, Misses, Bypasses int64
	Size                   int
}

// CacheStats reports how the memo does, and false if there is none.
func (p *Policy) CacheStats() (CacheStats, bool) {
	if p.cache == nil {
		return CacheStats{}, false
	}
	return CacheStats{
		Hits: p.cache.hits.Value(), Misses: p.cache.misses.Value(), Bypasses: p.cache.bypasses.Value(), Size: p.cache.verdicts.EstimatedSize(),
	}, true
}

// unsteady are functions whose answer may change though OPA does not say so: they look at the clock.
var unsteady = map[string]bool{
	"io.jwt.decode_verify":                                   true,
	"crypto.x509.parse_and_verify_certificates":              true,
	"crypto.x509.parse_and_verify_certificates_with_options": true,
}

// nondeterminism are the calls of functions in the rules that keep verdicts from being remembered: always, and only where they
// are made.
type nondeterminism struct{ always, sometimes []string }

// nondeterminismOf finds them.
func nondeterminismOf(b *bundle.Bundle) nondeterminism {
	var out nondeterminism
	for _, m := range b.Modules() {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			ref, ok := t.Value.(ast.Ref)
			if !ok {
				return false
			}
			call := ref.String()
			b := ast.BuiltinMap[call]
			switch at := ""; {
			case call == ast.InternalPrint.Name:
				out.sometimes = append(out.sometimes, placeOf("print", t, at))
			case unsteady[call]:
				out.always = append(out.always, placeOf(call, t, at))
			case b != nil && b.Nondeterministic:
				out.sometimes = append(out.sometimes, placeOf(call, t, at))
			}
			return false
		})
	}
	return out
}

func placeOf(call string, t *ast.Term, at string) string {
	if t.Location != nil {
		at = fmt.Sprintf(" (%s:%d)", t.Location.File, t.Location.Row)
	}
	return call + at
}

// Memo says in words whether verdicts are remembered.
func (p *Policy) Caching() string {
	switch {
	case p.cache == nil && len(p.nondeterminism.always) > 0:
		return "off, because of " + strings.Join(p.nondeterminism.always, ", ")
	case p.cache == nil:
		return "off"
	case len(p.nondeterminism.sometimes) > 0:
		return "on, but for decisions that ask " + strings.Join(slices.Compact(p.nondeterminism.sometimes), ", ")
	}
	return "on"
}
