package envoy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

func TestConcurrentRequestsGetExactlyTheQuota(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "hundred")
	replies := make([]reply, 200)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 200 { // all at once
		wg.Go(func() {
			for i := next.Add(1); i <= 200; i = next.Add(1) {
				replies[i-1] = s.get("/", key.Text)
			}
		})
	}
	wg.Wait()
	allowed := s.Count()
	codes := make(map[int]int)
	s.Reset()
	for _, r := range replies {
		if codes[r.StatusCode]++; r.StatusCode != http.StatusOK {
			s.wantDenial(r, http.StatusPaymentRequired, "quota_exceeded")
		}
	}
	if allowed != 100 || codes[200] != 100 || codes[402] != 100 {
		t.Errorf("%d requests reached the upstream and clients got %v, want 100 and 100 of 200 and 402", allowed, codes)
	}
	if n := s.spent("acme", "monthly"); n != 100 {
		t.Errorf("%d units were charged", n)
	}
}

func TestSeveralLimitsAreChargedAllOrNone(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "both")
	var wg sync.WaitGroup
	for range 40 { // many at once, so that some take of the month and then find no credits
		wg.Go(func() { s.get("/", key.Text) })
	}
	wg.Wait()
	if n := s.Count(); n != 5 {
		t.Errorf("%d requests reached the upstream with 5 credits", n)
	}
	// Units that were taken for a request that was then refused are given back behind its answer.
	await(t, func() bool { return s.spent("acme", "monthly") == 5 && s.spent("acme", "credits") == 5 })
	s.Reset()
	s.wantDenial(s.get("/", key.Text), http.StatusPaymentRequired, "credits_exhausted")
	await(t, func() bool { return s.spent("acme", "monthly") == 5 })
}
