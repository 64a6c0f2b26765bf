package memory

import (
	"context"
	"sort"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Revocations is a revocation.Store.
type Revocations struct {
	mu       sync.Mutex
	revision uint64
	records  map[matcher]revocation.Record
}

type matcher struct {
	kind          revocation.Kind
	issuer, value string
}

var _ revocation.Store = (*Revocations)(nil)

// NewRevocations makes an empty store.
func NewRevocations() *Revocations {
	return &Revocations{records: make(map[matcher]revocation.Record)}
}

// Add is revocation.Store.Add.
func (s *Revocations) Add(_ context.Context, r revocation.Record) (revocation.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := matcher{r.Kind, r.Issuer, r.Value}
	if old, ok := s.records[m]; ok {
		merged, changed := revocation.Merge(old, r)
		if !changed {
			return old, nil
		}
		r = merged
	}
	s.revision++
	r.Revision = s.revision
	s.records[m] = r
	return r, nil
}

// Since is revocation.Store.Since.
func (s *Revocations) Since(_ context.Context, after uint64, limit int) ([]revocation.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []revocation.Record
	for _, r := range s.records {
		if r.Revision > after {
			out = append(out, r)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Revision < out[j].Revision })
	return out[:min(len(out), max(limit, 0))], nil
}

// Get is revocation.Store.Get.
func (s *Revocations) Get(_ context.Context, kind revocation.Kind, issuer, value string) (revocation.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[matcher{kind, issuer, value}]
	return r, ok, nil
}
