package envoy

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// TestQuota_IsExactUnderConcurrency sends 200 requests at once. Envoy waits 0.3 s for each check; a busy machine takes
// longer for some, which Envoy denies with 503, and the round is repeated. No round allows more than the quota.
func TestQuota_IsExactUnderConcurrency(t *testing.T) {
	s := newStack(t)
	for round := 1; ; round++ {
		account := fmt.Sprintf("acme-%d", round)
		key := s.customer(account, "hundred")
		codes, denials := s.burst(200, key.Text)
		allowed := s.Count()
		s.Reset()
		if codes[http.StatusServiceUnavailable] > 0 && allowed <= 100 && round < 8 {
			t.Logf("round %d: too busy to answer all: %v", round, codes)
			continue
		}
		for _, r := range denials {
			s.wantDenial(r, http.StatusPaymentRequired, "quota_exceeded")
		}
		if allowed != 100 || codes[200] != 100 || codes[402] != 100 {
			t.Errorf("%d requests reached the upstream and clients got %v, want 100 and 100 of 200 and 402", allowed, codes)
		}
		if n := s.spent(account, "monthly"); n != 100 {
			t.Errorf("%d units were charged", n)
		}
		return
	}
}

// burst sends n requests at once. It returns how many answers had each status, and the answers with another status than 200.
func (s *stack) burst(n int, key string) (map[int]int, []reply) {
	replies := make([]reply, n)
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() { replies[i] = s.get("/", key) })
	}
	wg.Wait()
	codes := make(map[int]int)
	var denials []reply
	for _, r := range replies {
		if codes[r.StatusCode]++; r.StatusCode != http.StatusOK {
			denials = append(denials, r)
		}
	}
	return codes, denials
}

func TestQuota_ChargesAllLimitsOrNone(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "both")
	var wg sync.WaitGroup
	for range 40 { // at once, so that some reserve a unit of the month and then find no credits
		wg.Go(func() { s.get("/", key.Text) })
	}
	wg.Wait()
	if n := s.Count(); n != 5 {
		t.Errorf("%d requests reached the upstream with 5 credits", n)
	}
	// Units that were reserved for a denied request are returned after its answer.
	await(t, func() bool { return s.spent("acme", "monthly") == 5 && s.spent("acme", "credits") == 5 })
	s.Reset()
	s.wantDenial(s.get("/", key.Text), http.StatusPaymentRequired, "credits_exhausted")
	await(t, func() bool { return s.spent("acme", "monthly") == 5 })
}
