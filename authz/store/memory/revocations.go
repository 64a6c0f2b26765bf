package memory

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Revocations is a revocation.Store.
type Revocations struct {
	mu       sync.Mutex
	revision uint64
	records  map[matcher]revocation.Record
	// order lists every record by its revision. It also has places that records left when they were merged or forgotten: readers
	// pass over them, and tidyLocked removes them once they are the greater part.
	order []place
	mark  revocation.Mark
}

type matcher struct {
	kind          revocation.Kind
	issuer, value string
}

type place struct {
	revision uint64
	matcher  matcher
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
	s.order = append(s.order, place{r.Revision, m})
	s.tidyLocked()
	return r, nil
}

// Since is revocation.Store.Since.
func (s *Revocations) Since(_ context.Context, after uint64, limit int) ([]revocation.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []revocation.Record
	first := sort.Search(len(s.order), func(i int) bool { return s.order[i].revision > after })
	for _, p := range s.order[first:] {
		if len(out) >= limit {
			break
		}
		if r, ok := s.atLocked(p); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// Get is revocation.Store.Get.
func (s *Revocations) Get(_ context.Context, kind revocation.Kind, issuer, value string) (revocation.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[matcher{kind, issuer, value}]
	return r, ok, nil
}

// Prune is revocation.Store.Prune. It looks at all records until it has found enough.
func (s *Revocations) Prune(_ context.Context, now time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for m, r := range s.records {
		if n >= limit {
			break
		}
		if !r.ExpiresAt.IsZero() && r.ExpiresAt.Before(now) {
			delete(s.records, m)
			n++
		}
	}
	s.tidyLocked()
	return n, nil
}

var _ revocation.Marks = (*Revocations)(nil)

// Mark is revocation.Marks.Mark.
func (s *Revocations) Mark(context.Context) (revocation.Mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark, nil
}

// SetMark is revocation.Marks.SetMark.
func (s *Revocations) SetMark(_ context.Context, m revocation.Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark = m
	return nil
}

// atLocked returns the record at a place, and whether it is still there.
func (s *Revocations) atLocked(p place) (revocation.Record, bool) {
	r, ok := s.records[p.matcher]
	return r, ok && r.Revision == p.revision
}

// tidyLocked removes the places that were left, if there are enough of them to pay for the walk.
func (s *Revocations) tidyLocked() {
	if len(s.order) <= 2*len(s.records)+64 {
		return
	}
	s.order = slices.DeleteFunc(s.order, func(p place) bool { _, ok := s.atLocked(p); return !ok })
}
