package signals

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// seenSize bounds a generation of what was seen: two of them take some 10 MB.
const seenSize = 50_000

// seen remembers which statements were acknowledged, in two generations: when the younger one is full or old, it becomes
// the elder and what was the elder is forgotten. To forget one early does no harm, for its records change nothing when they
// are made again.
type seen struct {
	age time.Duration // of a generation

	mu           sync.Mutex
	young, elder map[[sha256.Size]byte]struct{}
	turned       time.Time // when the younger generation began
}

func newSeen(age time.Duration) *seen {
	return &seen{age: age, young: make(map[[sha256.Size]byte]struct{})}
}

// statementKey is one name for an issuer and a jti. The length keeps one from running into the other.
func statementKey(st *authz.Statement) [sha256.Size]byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(st.Issuer)))
	return sha256.Sum256(append(append(b, st.Issuer...), st.ID...))
}

// has reports whether a statement was acknowledged.
func (s *seen) has(key [sha256.Size]byte, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasLocked(key, now)
}

// add remembers a statement, and reports whether it is new.
func (s *seen) add(key [sha256.Size]byte, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasLocked(key, now) {
		return false
	}
	if len(s.young) >= seenSize {
		s.turnLocked(now)
	}
	s.young[key] = struct{}{}
	return true
}

func (s *seen) hasLocked(key [sha256.Size]byte, now time.Time) bool {
	if age := now.Sub(s.turned); age >= s.age {
		s.turnLocked(now)
		if age >= 2*s.age {
			s.turnLocked(now)
		}
	}
	_, young := s.young[key]
	_, elder := s.elder[key]
	return young || elder
}

func (s *seen) turnLocked(now time.Time) {
	s.young, s.elder, s.turned = make(map[[sha256.Size]byte]struct{}), s.young, now
}
