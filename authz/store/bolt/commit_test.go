package bolt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

func openFresh(t *testing.T, o Options) *DB {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "tollkeeper.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// hold keeps the committer busy until the returned function is called, so that the writes that come meanwhile make one group.
func hold(t *testing.T, db *DB) (release func()) {
	t.Helper()
	started, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.commits.do(context.Background(), func(*write) error {
			close(started)
			<-free
			return nil
		})
	})
	<-started
	return func() { close(free); wg.Wait() }
}

func has(t *testing.T, db *DB, key string) bool {
	t.Helper()
	found := false
	if err := db.commits.do(t.Context(), func(w *write) error {
		found = w.get(bucketMeta, []byte(key)) != nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func putMeta(key string, and func() error) func(*write) error {
	return func(w *write) error {
		if err := w.put(bucketMeta, []byte(key), []byte("x")); err != nil {
			return err
		}
		return and()
	}
}

// TestCommitter_AnswersEachWriteOfAGroup sends writes, some of which fail half way. Each gets its own answer, and leaves all or
// nothing.
func TestCommitter_AnswersEachWriteOfAGroup(t *testing.T) {
	db := openFresh(t, Options{})
	release := hold(t, db)
	refusal := authz.Errorf(authz.KindConflict, "no")
	ends := []func() error{
		func() error { return nil },
		func() error { return refusal },
		func() error { panic("on purpose") },
		func() error { var b *quota.Book; _ = b.Current.Granted; return nil },
	}
	errs := make([]error, 40)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = db.commits.do(t.Context(), putMeta(fmt.Sprint(i), ends[i%len(ends)])) })
	}
	release()
	wg.Wait()
	for i, err := range errs {
		switch i % len(ends) {
		case 0:
			if err != nil || !has(t, db, fmt.Sprint(i)) {
				t.Errorf("write %d: %v", i, err)
			}
		case 1:
			if !errors.Is(err, refusal) || has(t, db, fmt.Sprint(i)) {
				t.Errorf("write %d left something, or was answered %v", i, err)
			}
		default:
			if authz.KindOf(err) != authz.KindUnavailable || err == nil || has(t, db, fmt.Sprint(i)) {
				t.Errorf("write %d left something, or was answered %v", i, err)
			}
		}
	}
}

// TestCommitter_SeesEarlierWritesOfItsGroup creates one account several times in one group: only the first write succeeds.
func TestCommitter_SeesEarlierWritesOfItsGroup(t *testing.T) {
	db := openFresh(t, Options{})
	release := hold(t, db)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = db.Keys().CreateAccount(t.Context(), apikey.Account{ID: "acme"}) })
	}
	release()
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if authz.KindOf(err) != authz.KindExists {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Fatalf("one account was made %d times", made)
	}
}

func TestCommitter_ContextEndsWhileQueued(t *testing.T) {
	db := openFresh(t, Options{})
	release := hold(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := db.commits.do(ctx, putMeta("late", func() error { return nil }))
	if authz.KindOf(err) != authz.KindUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("answer %v", err)
	}
	release()
	if has(t, db, "late") {
		t.Error("a write that was refused took place")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Keys().Find(cancelled, apikey.Digest{}); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a read with an ended context: %v", err)
	}
	if _, err := db.Keys().CreateAccount(cancelled, apikey.Account{ID: "acme"}); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a write with an ended context: %v", err)
	}
}

// TestCommitter_ContextEndsWhileRunning has a write that hangs: its caller stops waiting.
func TestCommitter_ContextEndsWhileRunning(t *testing.T) {
	db := openFresh(t, Options{})
	free, ctx := make(chan struct{}), context.Background()
	ctx, cancel := context.WithCancel(ctx)
	err := db.commits.do(ctx, func(*write) error {
		cancel()
		<-free
		return nil
	})
	close(free)
	if authz.KindOf(err) != authz.KindUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("answer %v", err)
	}
}

func TestClose_FinishesQueuedWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	release := hold(t, db)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = db.commits.do(context.Background(), putMeta(fmt.Sprint(i), func() error { return nil }))
		})
	}
	wg.Go(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	release()
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	for what, err := range map[string]error{
		"find":    second(db.Keys().Find(t.Context(), apikey.Digest{})),
		"list":    second(db.Keys().Keys(t.Context(), apikey.Page{})),
		"write":   second(db.Keys().CreateAccount(t.Context(), apikey.Account{ID: "acme"})),
		"balance": second(db.Ledger().Balance(t.Context(), quota.Bucket{}, authz.Limit{})),
		"check":   db.Check(t.Context()),
	} {
		if err == nil || authz.KindOf(err) != authz.KindUnavailable {
			t.Errorf("%s after close: %v", what, err)
		}
	}
	if db, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for i, err := range errs {
		if (err == nil) != has(t, db, fmt.Sprint(i)) {
			t.Errorf("write %d was answered %v", i, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestCommitter_ResyncsAfterAFailedCommit has a commit that failed and is on disk all the same: memory has it after the next write.
func TestCommitter_ResyncsAfterAFailedCommit(t *testing.T) {
	db := openFresh(t, Options{})
	if _, err := db.Keys().CreateAccount(t.Context(), apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	// As if the disk had failed after the transaction: the file has the key, memory has not.
	k := apikey.Key{ID: "unsure", Account: "acme", Digest: apikey.Hasher{}.Text("unsure"), Version: 1}
	if err := db.commits.do(t.Context(), func(w *write) error {
		w.afterCommit(func() { db.file.uncertain = true })
		if err := indexKey(w, &k); err != nil {
			return err
		}
		return w.put(bucketDigests, k.Digest[:], keyrecord.AppendKey(nil, &k))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Keys().Find(t.Context(), k.Digest); authz.KindOf(err) != authz.KindNotFound {
		t.Fatalf("memory knows it: %v", err)
	}
	_, err := db.Keys().CreateKey(t.Context(), k)
	if authz.KindOf(err) != authz.KindExists {
		t.Fatalf("the repeated write: %v", err)
	}
	if _, err := db.Keys().Find(t.Context(), k.Digest); err != nil {
		t.Fatalf("what exists is not found: %v", err)
	}
}

// TestCommitter_ReadGivesUpWhenItsContextEnds reads while the disk hangs in the middle of a commit.
func TestCommitter_ReadGivesUpWhenItsContextEnds(t *testing.T) {
	db := openFresh(t, Options{})
	a := apikey.Account{ID: "acme", Status: authz.AccountActive, Version: 1}
	if _, err := db.Keys().CreateAccount(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := db.reload(); err != nil { // so that the account is not in memory
		t.Fatal(err)
	}
	if err := db.file.commitGate.Acquire(t.Context(), allReads); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := db.Keys().Account(ctx, a.ID)
	db.file.commitGate.Release(allReads)
	if authz.KindOf(err) != authz.KindUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the disk hangs: %v", err)
	}
	if _, err := db.Keys().Account(t.Context(), a.ID); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
