package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// listener hears what other processes notify, on a connection of its own, and wakes whoever follows the feed. Without such a
// connection it wakes them at intervals.
//
// That a connection can LISTEN does not say that it hears: behind PgBouncer in transaction mode the session that listens is another
// client's a moment later, and after a failover the connection may still reach the old primary. So the listener notifies itself
// through the pool, when it has connected and at intervals, and believes that only.
type listener struct {
	dial func(ctx context.Context) (*pgx.Conn, error)
	// notify sends through another connection.
	notify func(ctx context.Context, channels, payloads []string) error
	inbox  string
	every  time.Duration // a test whether it hears
	// receive gets what arrives at nodesChannel and at the inbox. It must not block.
	receive func(channel, payload string)
	log     *slog.Logger

	mu        sync.Mutex
	hears     bool
	reported  bool // the log says that it does not
	followers map[*follower]struct{}
}

type follower struct{ wake chan struct{} }

const (
	pollEvery   = time.Second // while nothing is heard
	testEvery   = 30 * time.Second
	sendWait    = 5 * time.Second // for the database to take our own notification
	testWait    = 2 * time.Second // for its arrival
	dialWait    = 10 * time.Second
	firstRetry  = time.Second // doubled with every failure
	latestRetry = time.Minute
)

// errDeaf is the error of a connection that does not hear.
var errDeaf = errors.New("no notification arrives: it may lead through a pooler in transaction mode, or to another server")

// run listens until ctx ends.
func (l *listener) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.poll(ctx) })
	defer wg.Wait()
	for retry := firstRetry; ctx.Err() == nil; retry = min(2*retry, latestRetry) {
		heard, err := l.session(ctx)
		if heard {
			retry = firstRetry
		}
		l.lose(ctx, err)
		wait(ctx, retry/2+mathrand.N(retry)) // jittered: when the database is back, not all nodes connect at once
	}
}

// wait waits, and less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// poll wakes the followers at intervals while nothing is heard.
func (l *listener) poll(ctx context.Context) {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if !l.listening() {
				l.wake()
			}
		}
	}
}

// session listens on one connection until that fails, and reports whether it ever heard.
func (l *listener) session(ctx context.Context) (heard bool, err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	for {
		if err := l.test(ctx, conn); err != nil {
			return heard, err
		}
		if !heard {
			heard = true
			l.gain()
		}
		if _, err := l.hear(ctx, conn, l.every, ""); err != nil {
			return heard, err
		}
	}
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	for _, channel := range []string{feedChannel, nodesChannel, l.inbox} {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			_ = conn.Close(ctx)
			return nil, err
		}
	}
	return conn, nil
}

// test notifies the inbox through another connection.
func (l *listener) test(ctx context.Context, conn *pgx.Conn) error {
	token := rand.Text()
	sending, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	if err := l.notify(sending, []string{l.inbox}, []string{token}); err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	found, err := l.hear(ctx, conn, testWait, token)
	if err == nil && !found {
		err = errDeaf
	}
	return err
}

// hear handles what arrives for that long, or until the token arrives, and then returns true.
func (l *listener) hear(ctx context.Context, conn *pgx.Conn, d time.Duration, token string) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(waiting)
		switch {
		case err == nil:
		case waiting.Err() != nil && ctx.Err() == nil && !conn.IsClosed():
			return false, nil
		default:
			return false, err
		}
		switch {
		case n.Channel == feedChannel:
			l.wake()
		case token != "" && n.Payload == token:
			return true, nil
		default:
			l.receive(n.Channel, n.Payload)
		}
	}
}

// gain notes that notifications arrive. Whatever was notified before is lost, so that all followers have to look.
func (l *listener) gain() {
	l.mu.Lock()
	l.hears = true
	was := l.reported
	l.reported = false
	l.mu.Unlock()
	if was {
		l.log.Info("notifications of the database arrive again")
	}
	l.wake()
}

// lose notes that nothing is heard.
func (l *listener) lose(ctx context.Context, err error) {
	l.mu.Lock()
	l.hears = false
	was := l.reported
	l.reported = true
	l.mu.Unlock()
	if was || ctx.Err() != nil {
		return
	}
	l.log.Warn("no notifications of the database: changes are read every "+pollEvery.String()+", and other nodes are not asked for units",
		"error", flat(err))
}

// listening reports whether notifications arrive.
func (l *listener) listening() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hears
}

// wake has every follower look.
func (l *listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.followers {
		select {
		case f.wake <- struct{}{}:
		default: // it has not looked since it was woken last
		}
	}
}

// follow returns a channel on which something arrives when the feed may have moved on. A follower that looks only then sees every
// change: after a notification, after each reconnection, and at intervals while nothing is heard. stop ends it.
func (l *listener) follow() (wake <-chan struct{}, stop func()) {
	f := &follower{make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.followers == nil {
		l.followers = make(map[*follower]struct{})
	}
	l.followers[f] = struct{}{}
	return f.wake, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.followers, f)
	}
}
