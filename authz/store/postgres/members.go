package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// leaveWait is how long leave tries to end the session. If it cannot, that ends after its term.
const leaveWait = time.Second

// Join is quota.Members.Join.
func (s *Ledger) Join(node quota.NodeID, p quota.Peer) (leave func()) {
	m := s.talk()
	s.mu.Lock()
	s.joined[node] = struct{}{}
	s.mu.Unlock()
	silence := m.Join(node, p)
	return func() {
		silence()
		s.mu.Lock()
		delete(s.joined, node)
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
		defer cancel()
		_ = s.changeRoll(ctx, func(t *state) { t.roll.Leave(node) })
	}
}

// Renew is quota.Members.Renew.
func (s *Ledger) Renew(ctx context.Context, node quota.NodeID, standing quota.Standing) (out quota.Session, err error) {
	err = s.changeRoll(ctx, func(t *state) { out = t.roll.Renew(node, standing, t.time) })
	return out, err
}

// Recall is quota.Members.Recall.
func (s *Ledger) Recall(ctx context.Context, node quota.NodeID, b quota.Bucket) {
	s.talk().Recall(ctx, node, b)
}

// Borrow is quota.Members.Borrow.
func (s *Ledger) Borrow(ctx context.Context, node quota.NodeID, r quota.RateRequest) int64 {
	return s.talk().Borrow(ctx, node, r)
}

// talk starts the messages between nodes, once.
func (s *Ledger) talk() *messages {
	s.start.Do(func() { s.messages = s.db.serveNodes(s.others) })
	return s.messages
}

// others is the nodes whose sessions ran when the roll was read last, and those of this process, without that one.
func (s *Ledger) others(node quota.NodeID) []quota.NodeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []quota.NodeID
	for n := range s.joined {
		if n != node && !slices.Contains(s.members, n) {
			out = append(out, n)
		}
	}
	for _, n := range s.members {
		if n != node {
			out = append(out, n)
		}
	}
	return out
}

// changeRoll brings the roll up to date and changes it, in a transaction that holds its lock. If there is nothing to change, because
// others were faster, it writes nothing.
func (s *Ledger) changeRoll(ctx context.Context, change func(*state)) error {
	query, err := s.stateQuery(ctx)
	if err != nil {
		return err
	}
	return s.db.repeat(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		var t state
		reached, b := s.reached(), &pgx.Batch{}
		s.db.beginIn(b)
		b.Queue(`SELECT FROM tollkeeper.roll FOR UPDATE`)
		b.Queue(query).QueryRow(s.scanState(&t)) // after the lock is held: it sees what was committed before
		err := conn.SendBatch(ctx, b).Close()
		var was, now []byte
		if err == nil {
			was, err = json.Marshal(&t.roll)
		}
		if err == nil {
			t.attend(reached)
			change(&t)
			now, err = json.Marshal(&t.roll)
		}
		if err != nil || bytes.Equal(was, now) && !t.fell {
			undo(ctx, conn)
			return repeatable(conn, err)
		}
		if err := writeRoll(ctx, conn, now); err != nil {
			undo(ctx, conn)
			return repeatable(conn, err)
		}
		s.finished(&t)
		return nil
	})
}

func writeRoll(ctx context.Context, conn *pgxpool.Conn, text []byte) error {
	b := &pgx.Batch{}
	b.Queue(`UPDATE tollkeeper.roll SET content = $1::text::jsonb`, string(text))
	queueCommit(b)
	return conn.SendBatch(ctx, b).Close()
}
