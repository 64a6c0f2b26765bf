package postgres

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

func hears(t testing.TB, db *DB) {
	t.Helper()
	waitUntil(t, "the listener hears", db.listen().listening)
}

// drain takes what has arrived already.
func drain(wake <-chan struct{}) {
	select {
	case <-wake:
	default:
	}
}

func woken(t testing.TB, wake <-chan struct{}, by string) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(20 * time.Second):
		t.Fatalf("not woken by %s", by)
	}
}

func TestListener_WakesFollowers(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	wake, stop := here.subscribe()
	hears(t, here)
	woken(t, wake, "the first connection") // what was notified before is lost
	drain(wake)
	add(t, there.Revocations(), keyRecord("key_1"))
	woken(t, wake, "a revocation")
	stop()
	add(t, there.Revocations(), keyRecord("key_2"))
	if !here.listen().listening() {
		t.Error("polls, and does not listen")
	}
}

// A connection that is cut is made again, and then everybody has to look: nobody knows what was notified meanwhile.
func TestListener_Reconnects(t *testing.T) {
	url := migrated(t)
	db := open(t, Options{URL: url})
	wake, stop := db.subscribe()
	defer stop()
	for range 2 {
		hears(t, db)
		drain(wake)
		if err := pgtest.Run(t.Context(), url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the cut is noticed", func() bool { return !db.listen().listening() })
		hears(t, db)
		woken(t, wake, "the new connection")
	}
}

// testListener is a listener for a database, whose own connection goes elsewhere.
type testListener struct{ *listener }

func newListener(t *testing.T, db *DB, elsewhere func() string) testListener {
	t.Helper()
	return testListener{&listener{
		dial:   func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, elsewhere()) },
		notify: db.notify, inbox: newInbox(), every: 10 * time.Millisecond, receive: func(string, string) {}, log: slog.New(slog.DiscardHandler),
	}}
}

// begin runs it until the test ends.
func (l testListener) begin(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

// Through PgBouncer in transaction mode, LISTEN succeeds and nothing arrives: the same as from another database.
func TestListener_PollsWhenDeaf(t *testing.T) {
	url, other := migrated(t), pgtest.New(t)
	db := open(t, Options{URL: url})
	l := newListener(t, db, func() string { return other })
	l.begin(t)
	wake, stop := l.follow()
	defer stop()
	for range 3 {
		woken(t, wake, "a poll")
	}
	if l.listening() {
		t.Error("a connection on which nothing arrives counts as one that listens")
	}
}

// After a failover the pool may be connected to the new primary and the listener still to the old one, which says nothing any more.
func TestListener_NoticesThatItIsElsewhere(t *testing.T) {
	url, other := migrated(t), migrated(t)
	db, promoted := open(t, Options{URL: url}), open(t, Options{URL: other})
	var failedOver atomic.Bool
	l := newListener(t, db, func() string {
		if failedOver.Load() {
			return other
		}
		return url
	})
	l.notify = func(ctx context.Context, channels, payloads []string) error {
		if failedOver.Load() {
			return promoted.notify(ctx, channels, payloads)
		}
		return db.notify(ctx, channels, payloads)
	}
	wake, stop := l.follow()
	defer stop()
	l.begin(t)
	waitUntil(t, "it hears", l.listening)
	failedOver.Store(true)
	waitUntil(t, "it notices", func() bool { return !l.listening() })
	waitUntil(t, "it hears the new primary", l.listening)
	drain(wake)
	if err := promoted.notify(t.Context(), []string{feedChannel}, []string{""}); err != nil {
		t.Fatal(err)
	}
	woken(t, wake, "the new primary")
}

func TestOpen_ListenURL(t *testing.T) {
	url, other := migrated(t), migrated(t)
	db := open(t, Options{URL: url, ListenURL: url + "&application_name=listener"})
	hears(t, db)
	var n int
	if err := db.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listener'").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d connections by the URL for listening, %v", n, err)
	}
	run(t, other, "UPDATE tollkeeper.installation SET id = gen_random_uuid()")
	if _, err := open(t, Options{URL: url, ListenURL: other}).dialListener(t.Context()); err == nil || !strings.Contains(err.Error(), "was served until now") {
		t.Errorf("listens to another installation: %v", err)
	}
	refused(t, Options{URL: url, ListenURL: "mysql://x"}, "invalid", "does not begin with postgres://")
}
