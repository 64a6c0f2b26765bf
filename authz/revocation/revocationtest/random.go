package revocationtest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// twins are the store under test and the one in memory, to which the same is done.
type twins struct {
	*fixture
	oracle *memory.Revocations
	// revisionOf is the store's revision for the oracle's: a store may leave gaps.
	revisionOf map[uint64]uint64
	round      int
}

// random does the same to the store and to the one in memory and compares every answer.
func random(f *fixture) {
	w := &twins{fixture: f, oracle: memory.NewRevocations(), revisionOf: make(map[uint64]uint64)}
	rapid.Check(f.T, func(t *rapid.T) {
		w.round++
		for range rapid.IntRange(1, 20).Draw(t, "operations") {
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			case 0:
				w.prune(t)
			case 1:
				w.since(t)
			default:
				w.add(t)
			}
		}
	})
	w.sameFeed(f.Fatalf, 0, 1_000_000)
}

func (w *twins) add(t *rapid.T) {
	r := someRecord(t, w.round)
	got, err := w.store.Add(w.Ctx(), r)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := w.oracle.Add(w.Ctx(), r)
	if known, ok := w.revisionOf[want.Revision]; ok && known != got.Revision {
		t.Fatalf("revision %d, want the %d of before", got.Revision, known)
	}
	w.revisionOf[want.Revision] = got.Revision
	want.Revision = got.Revision
	if storetest.Text(got) != storetest.Text(want) {
		t.Fatalf("answer\n%s, want\n%s", storetest.Text(got), storetest.Text(want))
	}
}

// prune goes on until nothing is left to forget: a store may choose which records a limit spares.
func (w *twins) prune(t *rapid.T) {
	now := Now().Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "now")) * time.Hour)
	limit := rapid.IntRange(1, 5).Draw(t, "limit")
	want, _ := w.oracle.Prune(w.Ctx(), now, 1_000_000)
	for {
		n, err := w.store.Prune(w.Ctx(), now, limit)
		if err != nil || n > limit {
			t.Fatalf("prune at most %d: %d, %v", limit, n, err)
		}
		if want -= n; n < limit {
			break
		}
	}
	if want != 0 {
		t.Fatalf("%d records too few were forgotten", want)
	}
	w.sameFeed(t.Fatalf, 0, 1_000_000)
}

func (w *twins) since(t *rapid.T) {
	all, _ := w.oracle.Since(w.Ctx(), 0, 1_000_000)
	if len(all) > 0 {
		after := rapid.SampledFrom(all).Draw(t, "after").Revision
		w.sameFeed(t.Fatalf, after, rapid.IntRange(1, 5).Draw(t, "limit"))
	}
}

func (w *twins) sameFeed(fail func(string, ...any), after uint64, limit int) {
	got, err := w.store.Since(w.Ctx(), w.revisionOf[after], limit)
	if err != nil {
		fail("since %d: %v", after, err)
	}
	want, _ := w.oracle.Since(w.Ctx(), after, limit)
	for i := range want {
		want[i].Revision = w.revisionOf[want[i].Revision]
	}
	if storetest.Text(got) != storetest.Text(want) {
		fail("since %d, at most %d, there is\n%s, want\n%s", after, limit, storetest.Text(got), storetest.Text(want))
	}
}

// someRecord is one of so few that the records of a round merge.
func someRecord(t *rapid.T, round int) revocation.Record {
	r := revocation.Record{
		Kind: rapid.SampledFrom([]revocation.Kind{
			revocation.KindKey, revocation.KindAccount, revocation.KindToken, revocation.KindJTI, revocation.KindSession,
			revocation.KindSubject, revocation.KindClient, revocation.KindSigningKey,
			revocation.KindSuspension, revocation.KindSuspension, revocation.KindSuspension, // has rules of its own
		}).Draw(t, "kind"),
		Issuer: rapid.SampledFrom([]string{"", "i"}).Draw(t, "issuer"),
		Value:  fmt.Sprint(round),
		Cause:  rapid.SampledFrom([]string{"", "left", "stolen"}).Draw(t, "cause"),
		At:     Now().Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Hour),
		Lifted: rapid.Bool().Draw(t, "lifted"),
	}
	hour := func(name string) time.Time {
		if n := rapid.IntRange(0, 3).Draw(t, name); n > 0 {
			return Now().Add(time.Duration(n) * time.Hour)
		}
		return time.Time{}
	}
	r.Before, r.ExpiresAt = hour("before"), hour("expires")
	if r.Kind != revocation.KindSuspension {
		r.Lifted = false
	}
	return r
}
