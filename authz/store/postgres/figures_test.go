package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// figures is how long things took.
type figures []time.Duration

// log prints the median and the 99th percentile, and fails the test if the latter is above a bound that a busy machine keeps too.
func (f figures) log(t *testing.T, what string, bound time.Duration) {
	t.Helper()
	slices.Sort(f)
	p50, p99 := f[len(f)/2], f[len(f)*99/100]
	t.Logf("%s: p50 %s, p99 %s, max %s, of %d", what, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), f[len(f)-1].Round(10*time.Microsecond), len(f))
	if p99 > bound {
		t.Errorf("%s: p99 %s, want at most %s", what, p99, bound)
	}
}

// A revocation reaches another node soon after it was acknowledged.
func TestFigures_RevocationReachesOtherNode(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	s := there.Revocations()
	set := revocation.NewSet(s, time.Minute, time.Now)
	wake, stop := s.Follow()
	defer stop()
	hears(t, there)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	known := sync.NewCond(&mu) // set has read more
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			_ = set.Sync(ctx)
			mu.Lock()
			known.Broadcast()
			mu.Unlock()
		}
	}()
	revocations := here.Revocations()
	var took figures
	for i := range 300 {
		id := fmt.Sprint(i)
		add(t, revocations, keyRecord(id))
		acknowledged := time.Now()
		mu.Lock()
		for !set.Key(id) {
			known.Wait()
		}
		mu.Unlock()
		took = append(took, time.Since(acknowledged))
	}
	took.log(t, "from the acknowledgement to the other node", time.Second)
}

// Many callers that revoke at once share transactions.
func TestFigures_ManyRevoke(t *testing.T) {
	db := open(t, Options{URL: migrated(t)})
	s := db.Revocations()
	const callers, each = 64, 50
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took figures
	began := time.Now()
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				start := time.Now()
				add(t, s, keyRecord(fmt.Sprint(c, "-", i)))
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d callers: %.0f revocations/s", callers, callers*each/time.Since(began).Seconds())
	took.log(t, "a revocation", 2*time.Second)
}
