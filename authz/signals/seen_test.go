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

// TestSeenIsBounded adds far more than is remembered: the latest are, and memory does not grow.
func TestSeenIsBounded(t *testing.T) {
	s, now := newSeen(time.Hour), time.Unix(1_700_000_000, 0)
	for i := range 3 * seenSize {
		if !s.add(key(i), now) {
			t.Fatalf("%d is not new", i)
		}
		if len(s.young) > seenSize || len(s.elder) > seenSize {
			t.Fatalf("%d and %d are remembered", len(s.young), len(s.elder))
		}
	}
	for i := 2 * seenSize; i < 3*seenSize; i++ {
		if !s.has(key(i), now) || s.add(key(i), now) {
			t.Fatalf("%d is forgotten", i)
		}
	}
	if s.has(key(0), now) {
		t.Error("everything is remembered")
	}
}

// TestSeenForATime holds that a statement is remembered for the age and not for much longer than twice that.
func TestSeenForATime(t *testing.T) {
	const age = time.Hour
	for _, start := range []time.Duration{0, time.Minute, age - 1, age, age + time.Minute} {
		for _, wait := range []time.Duration{0, age / 2, age - 1, 2 * age, 3 * age} {
			s, now := newSeen(age), time.Unix(1_700_000_000, 0)
			s.has(key(0), now)
			now = now.Add(start)
			s.add(key(1), now)
			if got, want := s.has(key(1), now.Add(wait)), wait < age; got != want {
				t.Errorf("added after %v: remembered for %v: %v", start, wait, got)
			}
		}
	}
}

func TestStatementKeysDoNotRunTogether(t *testing.T) {
	a := statementKey(&authz.Statement{Issuer: "https://idp.example/a", ID: "b"})
	b := statementKey(&authz.Statement{Issuer: "https://idp.example/", ID: "ab"})
	if a == b {
		t.Error("two issuers share a name")
	}
}
