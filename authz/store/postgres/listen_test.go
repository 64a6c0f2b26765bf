package postgres

import (
	"context"
	"log/slog"
	"strings"
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
		run(t, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
		waitUntil(t, "the cut is noticed", func() bool { return !db.listen().listening() })
		hears(t, db)
		woken(t, wake, "the new connection")
	}
}

// newListener is a listener for a database, whose own connection goes elsewhere.
func newListener(t *testing.T, db *DB, elsewhere func() string) *listener {
	t.Helper()
	l := &listener{
		dial:   func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, elsewhere()) },
		notify: db.notify, inbox: newInbox(), receive: func(string, string) {}, log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// Through PgBouncer in transaction mode, LISTEN succeeds and nothing arrives: the same as from another database.
func TestListener_PollsWhenDeaf(t *testing.T) {
	url, other := migrated(t), pgtest.New(t)
	db := open(t, Options{URL: url})
	l := newListener(t, db, func() string { return other })
	wake, stop := l.follow()
	defer stop()
	for range 3 {
		woken(t, wake, "a poll")
	}
	if l.listening() {
		t.Error("a connection on which nothing arrives counts as one that listens")
	}
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
