package signals

import (
	"fmt"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func key(n int) [32]byte {
	return statementKey(&authz.Statement{Issuer: "https://idp.example.com/", ID: fmt.Sprint(n)})
}

// TestJTICache_Bounded adds three times what fits: the latest are remembered, and memory does not grow.
func TestJTICache_Bounded(t *testing.T) {
	c, now := newJTICache(time.Hour), time.Unix(1_700_000_000, 0)
	for i := range 3 * jtiCacheSize {
		if !c.add(key(i), now) {
			t.Fatalf("%d is not new", i)
		}
		if len(c.current) > jtiCacheSize || len(c.previous) > jtiCacheSize {
			t.Fatalf("%d and %d are remembered", len(c.current), len(c.previous))
		}
	}
	for i := 2 * jtiCacheSize; i < 3*jtiCacheSize; i++ {
		if !c.has(key(i), now) || c.add(key(i), now) {
			t.Fatalf("%d is forgotten", i)
		}
	}
	if c.has(key(0), now) {
		t.Error("everything is remembered")
	}
}

// TestJTICache_Age: a statement is remembered for at least the age, and for at most twice the age.
func TestJTICache_Age(t *testing.T) {
	const age = time.Hour
	for _, start := range []time.Duration{0, time.Minute, age - 1, age, age + time.Minute} {
		for _, wait := range []time.Duration{0, age / 2, age - 1, 2 * age, 3 * age} {
			c, now := newJTICache(age), time.Unix(1_700_000_000, 0)
			c.has(key(0), now)
			now = now.Add(start)
			c.add(key(1), now)
			if got, want := c.has(key(1), now.Add(wait)), wait < age; got != want {
				t.Errorf("added after %v: remembered for %v: %v", start, wait, got)
			}
		}
	}
}

func TestStatementKey_IssuerAndJTIStayApart(t *testing.T) {
	a := statementKey(&authz.Statement{Issuer: "https://idp.example/a", ID: "b"})
	b := statementKey(&authz.Statement{Issuer: "https://idp.example/", ID: "ab"})
	if a == b {
		t.Error("two issuers share a name")
	}
}
