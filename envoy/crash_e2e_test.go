package envoy

import (
	"net/http"
	"testing"
)

func TestCrash_LosesAndLeaksNothing(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	revoked := s.key("acme")
	load := s.underLoad(8, "x-api-key", key.Text)
	await(t, func() bool { return load.answered(http.StatusOK) > 200 })

	// Changes that are acknowledged just before the crash last.
	s.cli(nil, "key", "revoke", revoked.ID)
	latest := s.customer("latest", "three")
	s.tk.Kill()
	mark := load.answered(http.StatusServiceUnavailable)
	await(t, func() bool { return load.answered(http.StatusServiceUnavailable) > mark+100 })
	before := s.Count()
	await(t, func() bool { return load.answered(http.StatusServiceUnavailable) > mark+300 })
	if during := s.Count() - before; during != 0 {
		t.Errorf("%d requests reached the upstream while Tollkeeper was down", during)
	}
	if err := s.tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mark = load.answered(http.StatusOK)
	await(t, func() bool { return load.answered(http.StatusOK) > mark+200 })
	statuses := load.stop()

	for status := range statuses {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("%d requests got status %d", statuses[status], status)
		}
	}
	status := make(map[string]int)
	for _, o := range load.outcomes {
		status[o.path] = o.status
	}
	for path, n := range s.paths() {
		if status[path] != http.StatusOK || n != 1 {
			t.Errorf("%s reached the upstream %d times, and its client got status %d", path, n, status[path])
		}
	}
	// A restart returns the leases of this run. Units that are still outstanding were lost in the crash.
	if err := s.tk.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := s.balance("acme", "monthly")
	charged := b.Spent + b.Stranded
	for _, units := range b.Outstanding {
		charged += units
	}
	if allowed := int64(statuses[http.StatusOK]); charged < allowed {
		t.Errorf("%d requests were allowed and only %d charged: %+v", allowed, charged, b)
	}
	if r := s.get("/", latest.Text); r.StatusCode != http.StatusOK {
		t.Errorf("the key that was made before the crash: %d %s", r.StatusCode, r.body)
	}
	s.Reset()
	s.wantDenial(s.get("/", revoked.Text), http.StatusForbidden, "key_revoked")
}
