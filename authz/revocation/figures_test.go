package revocation_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

const issuer = "https://issuer.example/realms/main"

func jti(i int) string { return fmt.Sprintf("1f2e3d4c-0000-4000-8000-%012d", i) }

// feed is a store that makes up its records when they are read, so that they take no memory.
type feed struct {
	revocation.Store
	size int
}

func (f feed) Since(_ context.Context, after uint64, limit int) ([]revocation.Record, error) {
	var out []revocation.Record
	for i := int(after); i < f.size && len(out) < limit; i++ {
		out = append(out, revocation.Record{
			Revision: uint64(i + 1), Kind: revocation.KindJTI, Issuer: issuer, Value: jti(i), At: noon(), ExpiresAt: noon().Add(time.Hour),
		})
	}
	return out, nil
}

// fill returns a set of n records, and the bytes of heap that each takes.
func fill(tb testing.TB, n int) (*revocation.Set, float64) {
	tb.Helper()
	before := heap()
	s := revocation.NewSet(feed{size: n}, time.Minute, noon)
	if err := s.Sync(tb.Context()); err != nil || s.Len() != n {
		tb.Fatalf("%d records, %v", s.Len(), err)
	}
	size := float64(heap()-before) / float64(n)
	runtime.KeepAlive(s)
	return s, size
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fullToken is a token with every field set, and not revoked.
func fullToken() authz.TokenFact {
	return authz.TokenFact{
		Status: authz.TokenValid, Issuer: issuer, ID: "not-revoked", Digest: credential.TokenDigest("text"), Subject: "auth0|5f7c8ec7c33c6c004bbafe82",
		Session: "0a1b2c3d-0000-4000-8000-000000000000", Client: "mobile-app", SigningKey: "2024-05-a", Account: "acme",
		IssuedAt: noon(), ExpiresAt: noon().Add(time.Hour),
	}
}

func TestSet_IsSmall(t *testing.T) {
	if _, size := fill(t, 200_000); size > 150 {
		t.Errorf("a record takes %.0f bytes", size)
	}
}

func TestSet_LookupsDoNotAllocate(t *testing.T) {
	s, _ := fill(t, 1000)
	token := fullToken()
	revoked := token
	revoked.ID = jti(7)
	for name, lookup := range map[string]func() bool{
		"key":           func() bool { return !s.Key("key_1") },
		"account":       func() bool { return !s.Account("acme", noon()) },
		"token":         func() bool { return !s.Token(&token) },
		"revoked token": func() bool { return s.Token(&revoked) },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if !lookup() {
				t.Fatal(name, "is not as expected")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkSet looks up among a million records: a token that has only a jti, which is revoked or not, and a token with every
// field set, which takes eight lookups.
func BenchmarkSet(b *testing.B) {
	const n = 1_000_000
	s, size := fill(b, n)
	there, others := make([]string, n/4), make([]string, n/4) // so many that the processor's cache does not hold their records
	for i := range there {
		there[i], others[i] = jti(i*7919%n), jti(n+i*7919%n)
	}
	full := fullToken()
	for _, c := range []struct {
		name  string
		token authz.TokenFact
		ids   []string
		set   func(t *authz.TokenFact, id string)
		want  bool
	}{
		{"hit", authz.TokenFact{Issuer: issuer}, there, func(t *authz.TokenFact, id string) { t.ID = id }, true},
		{"miss", authz.TokenFact{Issuer: issuer}, others, func(t *authz.TokenFact, id string) { t.ID = id }, false},
		{"token", full, others, func(t *authz.TokenFact, id string) { t.ID, t.Digest, t.Subject, t.Session = id, id, id, id }, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				c.set(&c.token, c.ids[i%len(c.ids)])
				if s.Token(&c.token) != c.want {
					b.Fatal("looked up wrongly")
				}
			}
			b.ReportMetric(size, "B/record")
		})
	}
}

// BenchmarkSync reads a million records into a set.
func BenchmarkSync(b *testing.B) {
	for b.Loop() {
		s := revocation.NewSet(feed{size: 1_000_000}, time.Minute, noon)
		if err := s.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
