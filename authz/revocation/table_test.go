package revocation_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// TestSet_ReadersWhileItGrowsAndShrinks reads what stays while so much comes and goes that every part of the set grows and shrinks
// under the readers.
func TestSet_ReadersWhileItGrowsAndShrinks(t *testing.T) {
	c := &clock{noon()}
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, c.now)
	const stay = 300
	for i := range stay {
		revoke(t, s, keyRecord(fmt.Sprint("stays-", i)))
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if id := fmt.Sprint("stays-", i%stay); !s.Key(id) {
					t.Errorf("%s is trusted", id)
					return
				}
				if id := fmt.Sprint("never-", i%stay); s.Key(id) {
					t.Errorf("%s was never revoked", id)
					return
				}
			}
		})
	}
	for round := range 3 {
		for i := range 10_000 {
			id := fmt.Sprint(round, "-", i)
			if revoke(t, s, expiring(id, c.t.Add(time.Minute))); !s.Key(id) {
				t.Fatalf("%s was acknowledged and is trusted", id)
			}
		}
		if s.Len() != stay+10_000 {
			t.Fatalf("%d records", s.Len())
		}
		c.t = c.t.Add(time.Hour)
		if err := s.Prune(t.Context()); err != nil || s.Len() != stay {
			t.Fatalf("%d records are left, %v", s.Len(), err)
		}
	}
	close(done)
	readers.Wait()
}
