package postgres

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// hearing is the listener of a DB, which is started when somebody wants to hear something, and the messages of its nodes.
type hearing struct {
	inbox string

	mu       sync.Mutex
	closed   bool
	listener *listener // nil until it is started
	stop     context.CancelFunc
	wg       sync.WaitGroup
	messages *messages // nil if no nodes are served
}

func newHearing() *hearing { return &hearing{inbox: newInbox()} }

// listen starts the listener, once.
func (db *DB) listen() *listener {
	h := db.hearing
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener != nil {
		return h.listener
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &listener{dial: db.dialListener, notify: db.notify, inbox: h.inbox, every: testEvery, receive: h.receive, log: db.o.Logger}
	h.listener, h.stop = l, stop
	if !h.closed {
		h.wg.Go(func() { l.run(ctx) })
	}
	return l
}

// close ends what the nodes say to each other, and then the listener.
func (h *hearing) close() {
	h.mu.Lock()
	h.closed = true
	m, stop := h.messages, h.stop
	h.mu.Unlock()
	if m != nil {
		m.close()
	}
	if stop != nil {
		stop()
	}
	h.wg.Wait()
}

func (h *hearing) receive(channel, payload string) {
	h.mu.Lock()
	m := h.messages
	h.mu.Unlock()
	if m != nil {
		m.receive(channel, payload)
	}
}

// subscribe returns a channel on which something arrives when the feed may have moved on: after a notification, after each
// reconnection, and at intervals while there are no notifications. stop ends it.
func (db *DB) subscribe() (wake <-chan struct{}, stop func()) { return db.listen().follow() }

// serveNodes starts what the nodes of this DB say to others. It is called once. others lists the other nodes whose sessions
// run, and does no I/O.
func (db *DB) serveNodes(others func(quota.NodeID) []quota.NodeID) *messages {
	l := db.listen()
	m := newMessages(newOutbox(l.inbox, db.notify), others, l.listening)
	db.hearing.mu.Lock()
	defer db.hearing.mu.Unlock()
	db.hearing.messages = m
	return m
}

// listenOptions are those of the connection that listens.
func (db *DB) listenOptions() Options {
	o := db.o
	if o.ListenURL != "" || o.ListenURLFile != "" {
		o.URL, o.URLFile = o.ListenURL, o.ListenURLFile
	}
	return o
}

// dialListener connects to the database that the pool serves.
func (db *DB) dialListener(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := parse(db.listenOptions())
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if err := db.admit(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// notifyAll notifies channels $1 of payloads $2. What it sends is not worth a write to the disk, nor the wait for a standby.
const notifyAll = `SELECT pg_notify(channel, payload)
	FROM (SELECT set_config('synchronous_commit', 'off', true)) AS once, unnest($1::text[], $2::text[]) AS letter(channel, payload)`

func (db *DB) notify(ctx context.Context, channels, payloads []string) error {
	_, err := db.pool.Exec(ctx, notifyAll, channels, payloads)
	return err
}
