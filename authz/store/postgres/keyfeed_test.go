package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// TestKeys_FeedInCommitOrder has a transaction take its revisions first and commit last: what the other has written meanwhile waits, and
// no node goes past it.
func TestKeys_FeedInCommitOrder(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}).Keys(), open(t, Options{URL: url}).Keys()
	if _, err := here.CreateAccount(t.Context(), apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	early, late := callers("early", 1)[0], callers("late", 1)[0]
	early.Account, late.Account = "acme", "acme"
	taken, commit := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // a node that is slow between its revisions and its commit
		if err := here.db.tx(t.Context(), func(tx pgx.Tx) error {
			w := &keyWrite{tx: tx}
			if _, err := w.addKey(t.Context(), early); err != nil {
				return err
			}
			if err := w.flush(t.Context()); err != nil {
				return err
			}
			close(taken)
			<-commit
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-taken
	written := make(chan struct{})
	wg.Go(func() {
		defer close(written)
		if _, err := here.CreateKey(t.Context(), late); err != nil {
			t.Error(err)
		}
	})
	waitUntil(t, "the other transaction waits for the first", func() bool { return waiting(t, here.db) == 1 })
	select {
	case <-written:
		t.Error("a later revision was committed first")
	default:
	}
	close(commit)
	wg.Wait()
	for _, k := range []apikey.Key{early, late} {
		waitUntil(t, "another node knows "+k.ID, func() bool {
			_, err := there.Find(t.Context(), k.Digest)
			return err == nil
		})
	}
	refusedAs(t, there, "neither", authz.KindNotFound)
}

// waiting is how many transactions of the database wait for another.
func waiting(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKeys_NodesConverge changes a few keys and accounts on three nodes at once, while others are imported. No node ever shows the state
// before a change that it has acknowledged, and in the end all hold the same as the database.
func TestKeys_NodesConverge(t *testing.T) {
	url := migrated(t)
	keys := callers("k", 6)
	nodes := make([]*Keys, 3)
	for i := range nodes {
		nodes[i] = open(t, Options{URL: url}).Keys()
	}
	importKeys(t, nodes[0], keys)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for n, s := range nodes {
		var atLeast [6]atomic.Uint64 // versions of the keys that this node has acknowledged
		raise := func(i int, version uint64) {
			for old := atLeast[i].Load(); version > old && !atLeast[i].CompareAndSwap(old, version); old = atLeast[i].Load() {
			}
		}
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.IntN(len(keys))
				if rand.IntN(20) == 0 { // as if it had not been used for a while
					s.held.Load().cache.DropKey(keys[i].Digest)
				}
				least := atLeast[i].Load()
				k, err := s.Find(t.Context(), keys[i].Digest)
				switch {
				case err != nil && (least > 0 || authz.KindOf(err) != authz.KindNotFound):
					t.Error(err)
					return
				case err == nil && k.Version < least:
					t.Errorf("node %d shows version %d of %s after %d", n, k.Version, k.ID, least)
					return
				}
			}
		})
		for w := range 3 {
			writers.Go(func() {
				for range 25 {
					i := rand.IntN(len(keys))
					k, err := s.AmendKey(t.Context(), keys[i].ID, apikey.KeyChange{Name: new(fmt.Sprint(n, w))})
					if err != nil {
						t.Error(err)
						return
					}
					raise(i, k.Version)
					if _, err := s.AmendAccount(t.Context(), keys[i].Account, apikey.AccountChange{Name: new(fmt.Sprint(n, w))}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Go(func() {
		for i := range 10 {
			importKeys(t, nodes[1], callers(fmt.Sprint("more", i, "-"), 700))
		}
	})
	writers.Wait()
	close(stop)
	readers.Wait()
	for n, s := range nodes {
		for _, k := range keys {
			waitUntil(t, fmt.Sprint("node ", n, " shows what is stored of ", k.ID), func() bool {
				stored, err := s.Key(t.Context(), k.ID)
				if err != nil {
					t.Fatal(err)
				}
				accounts, err := s.Accounts(t.Context(), apikey.Page{Limit: 10_000})
				if err != nil {
					t.Fatal(err)
				}
				at := slices.IndexFunc(accounts, func(a *apikey.Account) bool { return a.ID == k.Account })
				shown, err := s.Find(t.Context(), k.Digest)
				account, err2 := s.Account(t.Context(), k.Account)
				return err == nil && err2 == nil && shown.Version == stored.Version && shown.Name == stored.Name &&
					account.Version == accounts[at].Version && account.Name == accounts[at].Name
			})
		}
		for i := range 10 {
			for _, k := range callers(fmt.Sprint("more", i, "-"), 700)[650:] {
				found(t, s, &k)
			}
		}
	}
}

// TestKeys_WithoutNotifications has a node that cannot listen: it looks at intervals.
func TestKeys_WithoutNotifications(t *testing.T) {
	url := migrated(t)
	here := open(t, Options{URL: url}).Keys()
	there := open(t, Options{URL: url, ListenURL: "postgres://u@127.0.0.1:1/d"}).Keys()
	keys := callers("k", 2)
	importKeys(t, here, keys)
	began := time.Now()
	waitUntil(t, "the other node knows the keys", func() bool { _, err := there.Find(t.Context(), keys[1].Digest); return err == nil })
	t.Logf("after %s", time.Since(began).Round(time.Millisecond))
	found(t, there, &keys[0])
	if _, err := here.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the key is off there", func() bool { k, err := there.Find(t.Context(), keys[0].Digest); return err == nil && k.Disabled })
}

// TestKeys_MoreChangesThanAPage has a node read a feed of several pages.
func TestKeys_MoreChangesThanAPage(t *testing.T) {
	url := migrated(t)
	there := open(t, Options{URL: url}).Keys()
	keys := callers("k", 2*feedPage+10)
	importKeys(t, open(t, Options{URL: url}).Keys(), keys)
	for _, i := range []int{0, feedPage, len(keys) - 1} {
		waitUntil(t, "the other node knows "+keys[i].ID, func() bool { _, err := there.Find(t.Context(), keys[i].Digest); return err == nil })
	}
}

// save returns the statements that bring the keys back to what they are now.
func save(t *testing.T, url string) (restore string) {
	t.Helper()
	run(t, url, "CREATE SCHEMA saved")
	for _, table := range []string{"keys", "accounts", "feed", "installation"} {
		run(t, url, fmt.Sprintf("CREATE TABLE saved.%s AS TABLE tollkeeper.%s", table, table))
		restore += fmt.Sprintf("DELETE FROM tollkeeper.%s; INSERT INTO tollkeeper.%s TABLE saved.%s; ", table, table, table)
	}
	return "BEGIN; " + restore + "COMMIT"
}

// TestKeys_LostChanges has the database forget its last changes, as a standby that is promoted too early does, and then make others with
// the same revisions.
func TestKeys_LostChanges(t *testing.T) {
	url := migrated(t)
	s := open(t, Options{URL: url, MaxStaleness: 2 * time.Second}).Keys()
	keys := callers("k", 3)
	importKeys(t, s, keys[:1])
	restore := save(t, url)
	importKeys(t, s, keys[1:2])
	if _, err := s.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Name: new("lost")}); err != nil {
		t.Fatal(err)
	}
	found(t, s, &keys[1])
	other := callers("other", 1)[0]
	run(t, url, restore)
	importKeys(t, open(t, Options{URL: url}).Keys(), []apikey.Key{other, keys[2]})
	waitUntil(t, "the lost key is unknown", func() bool {
		_, err := s.Find(t.Context(), keys[1].Digest)
		return authz.KindOf(err) == authz.KindNotFound
	})
	waitUntil(t, "the key shows its old name", func() bool {
		k, err := s.Find(t.Context(), keys[0].Digest)
		return err == nil && k.Name == keys[0].Name
	})
	waitUntil(t, "the other key is known", func() bool { _, err := s.Find(t.Context(), other.Digest); return err == nil })
}

// TestKeys_LostWriteOfThisNode has the database lose a write of the node before the node's feed has come to it.
func TestKeys_LostWriteOfThisNode(t *testing.T) {
	url, sent := migrated(t), newStatements()
	s := open(t, Options{URL: url, tracer: sent, MaxStaleness: 2 * time.Second}).Keys()
	keys := callers("k", 2)
	restore := save(t, url)
	free := sent.hold(t, sent.starts, selectChanges)
	importKeys(t, s, keys[:1])
	found(t, s, &keys[0])
	run(t, url, restore)
	free()
	waitUntil(t, "the lost key is unknown", func() bool {
		_, err := s.Find(t.Context(), keys[0].Digest)
		return authz.KindOf(err) == authz.KindNotFound
	})
}

// TestKeys_ReloadMissesNoWrite makes a key while everything is loaded anew: it is known as soon as that is used.
func TestKeys_ReloadMissesNoWrite(t *testing.T) {
	sent := newStatements()
	s := open(t, Options{URL: migrated(t), tracer: sent, MaxStaleness: time.Minute}).Keys()
	keys := callers("k", 3)
	importKeys(t, s, keys[:1])
	freeLoad := sent.hold(t, sent.ends, selectDigests)
	s.feed.reader.start(place{Revision: 1 << 40, Token: "00000000-0000-0000-0000-000000000000"}) // which the database does not know
	importKeys(t, s, keys[1:2])                                                                  // wakes the feed
	waitUntil(t, "the digests were read", func() bool { return sent.held.Load() == 1 })
	before := s.held.Load()
	importKeys(t, s, keys[2:])
	freeFeed := sent.hold(t, sent.starts, selectChanges)
	freeLoad()
	waitUntil(t, "they are used", func() bool { return s.held.Load() != before })
	for _, k := range keys {
		found(t, s, &k)
	}
	freeFeed()
}

// TestHeldKeys_LateChanges applies changes in another order than that of their revisions: what may be out of date is not held.
func TestHeldKeys_LateChanges(t *testing.T) {
	s := open(t, Options{URL: migrated(t)}).Keys()
	importKeys(t, s, callers("k", 1))
	d := callers("k", 1)[0].Digest
	if _, err := s.AmendKey(t.Context(), "k0", apikey.KeyChange{Name: new("first")}); err != nil {
		t.Fatal(err)
	}
	held := s.held.Load()
	var late []keyChange
	if err := s.db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectChanges, 0, 10)
		if err == nil {
			late, err = pgx.CollectRows(rows, scanChange)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AmendKey(t.Context(), "k0", apikey.KeyChange{Name: new("second")}); err != nil {
		t.Fatal(err)
	}
	for _, hold := range []bool{true, false} {
		held.apply(late, hold)
		if k, err := s.Find(t.Context(), d); err != nil || k.Name != "second" {
			t.Errorf("%+v, %v", k, err)
		}
	}
}
