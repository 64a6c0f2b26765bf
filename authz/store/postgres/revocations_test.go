package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/revocationtest"
)

func TestRevocations_Contract(t *testing.T) {
	for _, parameter := range []string{"", "&default_query_exec_mode=exec"} { // the latter for PgBouncer
		t.Run(parameter, func(t *testing.T) {
			revocationtest.Run(t, func(t *testing.T, _ func() time.Time) revocation.Store {
				return open(t, Options{URL: migrated(t) + parameter}).Revocations()
			})
		})
	}
}

func keyRecord(id string) revocation.Record {
	return revocation.Record{Kind: revocation.KindKey, Value: id, At: revocationtest.Now()}
}

func add(t testing.TB, s *Revocations, r revocation.Record) revocation.Record {
	t.Helper()
	stored, err := s.Add(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// values is what a reader finds above a revision.
func values(t testing.TB, s *Revocations, after uint64) (out []string) {
	t.Helper()
	records, err := s.Since(t.Context(), after, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		out = append(out, r.Value)
	}
	return out
}

// A transaction that has taken its revision is not committed yet: no later one may be seen before, for whoever saw it would never
// look for the earlier one.
func TestFeed_InCommitOrder(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	taken, commit := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := here.tx(t.Context(), func(tx pgx.Tx) error {
			adds := []*addition{{record: keyRecord("first")}}
			var at place
			records, err := lockRevocations(t.Context(), tx, adds, &at)
			if err != nil {
				return err
			}
			close(taken)
			<-commit
			return putRevocations(t.Context(), tx, records, mergeAll(records, adds, at.Revision-1))
		}); err != nil {
			t.Error(err)
		}
	})
	<-taken
	second := make(chan struct{})
	wg.Go(func() { add(t, there.Revocations(), keyRecord("second")); close(second) })
	waitUntil(t, "the second transaction waits for the row of revisions", func() bool {
		var n int
		row := here.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
		return row.Scan(&n) == nil && n == 1
	})
	if got := values(t, there.Revocations(), 0); len(got) != 0 {
		t.Errorf("a reader sees %q, and nothing is committed", got)
	}
	close(commit)
	<-second
	wg.Wait()
	if got := values(t, there.Revocations(), 0); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("the feed is %q", got)
	}
}

// waitUntil waits until a condition holds.
func waitUntil(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// Two nodes that merge the same records at once lose nothing of either.
func TestRevocations_TwoNodesMerge(t *testing.T) {
	url := migrated(t)
	nodes := []*Revocations{open(t, Options{URL: url}).Revocations(), open(t, Options{URL: url}).Revocations()}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			r := keyRecord(fmt.Sprint(i % 7))
			r.Kind, r.Before = revocation.KindAccount, revocationtest.Now().Add(time.Duration(i)*time.Hour)
			add(t, nodes[i%2], r)
		})
	}
	wg.Wait()
	records, err := nodes[0].Since(t.Context(), 0, 100)
	if err != nil || len(records) != 7 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, r := range records {
		if last := 199 - r.Before.Sub(revocationtest.Now())/time.Hour; last >= 7 {
			t.Errorf("account %s is cut off until %s: a later instant was lost", r.Value, r.Before)
		}
	}
}

// The row of revisions lets transactions through one by one, so many that wait must share one.
func TestRevocations_ShareTransactions(t *testing.T) {
	db := open(t, Options{URL: migrated(t)})
	s := db.Revocations()
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.tx(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), takeRevisions, 1)
			close(held)
			<-release
			return errors.Join(err, errUnchanged)
		})
	})
	<-held
	for i := range 300 {
		wg.Go(func() { add(t, s, keyRecord(fmt.Sprint(i))) })
	}
	waitUntil(t, "299 wait for the first", func() bool {
		db.additions.mu.Lock()
		defer db.additions.mu.Unlock()
		return len(db.additions.waiting) >= 299-maxGroup && len(db.additions.waiting) > 200
	})
	close(release)
	wg.Wait()
	var writes int
	if err := db.pool.QueryRow(t.Context(), "SELECT count(*) - 1 FROM tollkeeper.feed").Scan(&writes); err != nil || writes > 10 {
		t.Errorf("300 records took %d transactions, %v", writes, err)
	}
	if got := values(t, s, 0); len(got) != 100 {
		t.Errorf("%d records in a page of 100", len(got))
	}
}

// A record that was added before costs no write.
func TestRevocations_AgainWritesNothing(t *testing.T) {
	db := open(t, Options{URL: migrated(t)})
	s := db.Revocations()
	first := add(t, s, keyRecord("key_1"))
	for range 3 {
		if again := add(t, s, keyRecord("key_1")); again.Revision != first.Revision {
			t.Errorf("revision %d, then %d", first.Revision, again.Revision)
		}
	}
	var writes, revision int
	if err := db.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) - 1 FROM tollkeeper.feed), revision FROM tollkeeper.installation`).
		Scan(&writes, &revision); err != nil || writes != 1 || revision != 1 {
		t.Errorf("%d writes, revision %d, %v", writes, revision, err)
	}
}

func TestRevocations_LongestNames(t *testing.T) {
	s := open(t, Options{URL: migrated(t)}).Revocations()
	random := func(n int) string { // does not compress
		var b strings.Builder
		for b.Len() < n {
			b.WriteString(newInbox()[len(inboxPrefix):])
		}
		return b.String()[:n]
	}
	r := revocation.Record{Kind: revocation.KindSession, Issuer: random(maxName), Value: random(maxName), At: revocationtest.Now()}
	add(t, s, r)
	r.Value += "x"
	if _, err := s.Add(t.Context(), r); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("a longer value: %v", err)
	}
	add(t, s, keyRecord("\xff\x00 is no text"))
	if _, found, err := s.Get(t.Context(), revocation.KindKey, "", "\xff\x00 is no text"); !found || err != nil {
		t.Errorf("bytes that are no text: %v, %v", found, err)
	}
}

// loseAfter does what a failover does to a standby that lacks the last commits.
func loseAfter(t *testing.T, db *DB, revision uint64) {
	t.Helper()
	for _, sql := range []string{
		"DELETE FROM tollkeeper.feed WHERE revision > $1", "DELETE FROM tollkeeper.revocations WHERE revision > $1",
		"UPDATE tollkeeper.installation SET revision = $1",
	} {
		if _, err := db.pool.Exec(t.Context(), sql, int64(revision)); err != nil {
			t.Fatal(err)
		}
	}
}

// After a failover that lost commits, revisions are given out again. A node that has read the lost ones must not take the new
// ones for those that it has, and must not forget what it was told.
func TestRevocations_LostCommits(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	set := revocation.NewSet(here.Revocations(), time.Minute, time.Now)
	sync := func() {
		t.Helper()
		if err := set.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := there.Revocations()
	kept := add(t, s, keyRecord("kept"))
	sync()
	for i := range 7 {
		add(t, s, keyRecord(fmt.Sprint("lost ", i)))
	}
	subject := revocation.Record{Kind: revocation.KindAccount, Value: "acme", At: revocationtest.Now(), Before: revocationtest.Now()}
	add(t, s, subject)
	sync()
	loseAfter(t, there, kept.Revision)
	subject.Before = subject.Before.Add(-time.Hour)
	for _, r := range []revocation.Record{keyRecord("new 1"), subject, keyRecord("new 2")} {
		add(t, s, r)
	}
	sync()
	for _, id := range []string{"kept", "lost 0", "new 1", "new 2"} {
		if !set.Key(id) {
			t.Errorf("the key %q is not revoked", id)
		}
	}
	if !set.Account("acme", revocationtest.Now()) {
		t.Error("what an earlier instant cut off is good again")
	}
	subject.Before = subject.Before.Add(2 * time.Hour) // the revision is below that of the lost record
	add(t, s, subject)
	sync()
	if !set.Account("acme", subject.Before) {
		t.Error("a record was taken for an older one of before")
	}
	if set.Revision() != 5 {
		t.Errorf("the set has read up to revision %d, want 5", set.Revision())
	}
}

// A node that has revoked something itself notices that the database has lost it, even before it has read it back.
func TestRevocations_LostCommitOfThisNode(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	set, s := revocation.NewSet(here.Revocations(), time.Minute, time.Now), there.Revocations()
	kept := add(t, s, keyRecord("kept"))
	if err := set.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	subject := revocation.Record{Kind: revocation.KindAccount, Value: "acme", At: revocationtest.Now(), Before: revocationtest.Now()}
	for _, r := range []revocation.Record{keyRecord("lost"), subject} {
		if _, err := set.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	loseAfter(t, there, kept.Revision)
	subject.Before = subject.Before.Add(time.Hour) // the revision is below that of the lost record
	add(t, s, subject)
	if err := set.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !set.Account("acme", subject.Before) {
		t.Error("a record was taken for an older one of before")
	}
}

// A restored copy may be behind even though its revisions are not.
func TestRevocations_OtherHistory(t *testing.T) {
	db := open(t, Options{URL: migrated(t)})
	set := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	s := db.Revocations()
	first := add(t, s, keyRecord("first"))
	for range 2 {
		add(t, s, keyRecord("old"))
		if err := set.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		loseAfter(t, db, first.Revision)
		add(t, s, keyRecord("new"))
		if err := set.Sync(t.Context()); err != nil || !set.Key("new") {
			t.Fatalf("the set took one revision for another: %v", err)
		}
	}
}

func TestRevocations_Mark(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}).Revocations(), open(t, Options{URL: url}).Revocations()
	if m, err := here.Mark(t.Context()); err != nil || m != (revocation.Mark{}) {
		t.Errorf("the first mark is %+v, %v", m, err)
	}
	for i := range 2 {
		want := revocation.Mark{Good: revocationtest.Now().Add(time.Duration(i)), Seen: revocationtest.Now().AddDate(1000, 0, 0), Held: time.Hour}
		if err := here.SetMark(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if m, err := there.Mark(t.Context()); err != nil || m != want {
			t.Errorf("the mark is %+v, %v, want %+v", m, err, want)
		}
	}
	now, err := here.Now(t.Context())
	if off := time.Since(now).Abs(); err != nil || off > time.Minute {
		t.Errorf("the clock of the database is off by %s, %v", off, err)
	}
}

// Rows of the feed that are forgotten are those that no reader needs.
func TestFeed_Forgets(t *testing.T) {
	url := migrated(t)
	db := open(t, Options{URL: url})
	s := db.Revocations()
	set := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	for i := range 3 {
		add(t, s, keyRecord(fmt.Sprint(i)))
	}
	if err := set.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, url, "UPDATE tollkeeper.feed SET at = at - interval '2 days'")
	if _, err := s.Prune(t.Context(), time.Now(), 10); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.pool.QueryRow(t.Context(), "SELECT count(*) FROM tollkeeper.feed").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows are left, want 1, %v", n, err)
	}
	if got := values(t, s, 3); len(got) != 0 {
		t.Errorf("above the last revision: %q", got)
	}
	if err := set.Sync(t.Context()); err != nil || set.Revision() != 3 {
		t.Errorf("a reader that is up to date: revision %d, %v", set.Revision(), err)
	}
}
