package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// state is what a transaction of the ledger knows of the server and the members. It is read after the locks are held.
type state struct {
	time             time.Time
	system, timeline string // "" if the server does not tell
	position         int64  // in the write-ahead log, before the commit of the transaction; 0 if the server does not tell
	safe             bool   // acknowledged commits are on the disk of a standby too
	commit           string // the setting synchronous_commit
	roll             quota.Roll
	fell             bool // position is below a mark, which counts no more
}

// incarnation tells servers apart whose commits may differ. A server that is promoted begins a new timeline, and so does one that was
// restored to a point in time. A database that was restored from a dump is in another system.
func (t *state) incarnation() string {
	if t.system == "" && t.timeline == "" {
		return ""
	}
	return t.system + ":" + t.timeline
}

// The functions that tell one server from another, and what is read in their place where an engine lacks them or the role may
// not call them. Without the first two, lost commits are noticed only when a node names a request that is lost (quota.Answer.Lost).
var whichServer = [...]struct{ read, without string }{
	{"(SELECT system_identifier::text FROM pg_control_system())", "''"},
	{"left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)", "''"},
	{"(pg_current_wal_insert_lsn() - '0/0')::bigint", "0::bigint"},
}

// readState reads the state. The settings are those of the transaction. With remote_write a standby that fails together with the primary
// loses what it had not yet written to its disk, so that counts as not safe.
const readState = `SELECT clock_timestamp(), %s, %s, %s,
	coalesce(current_setting('synchronous_standby_names', true), '') <> '' AND current_setting('synchronous_commit') IN ('on', 'remote_apply'),
	current_setting('synchronous_commit'), content FROM tollkeeper.roll`

// stateQuery is readState with the functions that the server has. It asks once.
func (s *Ledger) stateQuery(ctx context.Context) (string, error) {
	s.mu.Lock()
	query := s.query
	s.mu.Unlock()
	if query != "" {
		return query, nil
	}
	var read [len(whichServer)]any
	for i, f := range whichServer {
		read[i] = f.read
		err := s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SELECT "+f.read)
			return err
		})
		switch sqlState(err) {
		case stateNoFunction, stateNoPrivilege, stateNoFeature:
			s.db.o.Logger.Warn("the database does not tell which server answers: after a failover commits may be lost without notice", "error", err)
			read[i] = f.without
		default:
			if err != nil {
				return "", err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.query = fmt.Sprintf(readState, read[:]...)
	return s.query, nil
}

// scanState reads the answer to stateQuery.
func (s *Ledger) scanState(t *state) func(pgx.Row) error {
	return func(row pgx.Row) error {
		*t = state{}
		if err := row.Scan(&t.time, &t.system, &t.timeline, &t.position, &t.safe, &t.commit, &t.roll); err != nil {
			return err
		}
		if t.commit == "off" {
			return authz.Errorf(authz.KindUnavailable, "synchronous_commit is off: a crash of PostgreSQL would lose what was acknowledged")
		}
		if s.db.o.Now != nil {
			t.time = s.db.o.Now()
		}
		t.time = t.time.UTC().Round(0)
		if s.alter != nil {
			s.alter(t)
		}
		return nil
	}
}

// instant is the ledger's clock, and what goes by it.
func (t *state) instant() quota.Instant {
	return quota.Instant{Time: t.time, Withhold: t.roll.Withholds(t.time), Alive: func(n quota.NodeID) bool { return t.roll.Alive(n, t.time) }}
}

// mark is how far the log of an incarnation had come at least when a transaction was acknowledged.
type mark struct {
	system, incarnation string
	position            int64
}

// reached is the highest mark.
func (s *Ledger) reached() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

// finished notes that a transaction that wrote was acknowledged. Its commit is in the log behind its position.
func (s *Ledger) finished(t *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := (mark{t.system, t.incarnation(), t.position}); m.incarnation != s.mark.incarnation || m.position > s.mark.position || t.fell {
		s.mark = m
	}
	s.members = slices.Collect(maps.Keys(t.roll.Members))
}

// doubtful reports whether the roll has to be changed before anything else: another incarnation answers, or one that lacks what it had
// when the mark was made, or there is a node that is overdue. The mark is from before the transaction began.
func (t *state) doubtful(m mark) bool {
	now := t.incarnation()
	return now != "" && now != t.roll.Incarnation || t.behind(m) || t.roll.Overdue(t.time)
}

// behind reports whether the server lacks commits that it had acknowledged. In place of its disk there may be an older copy.
func (t *state) behind(m mark) bool {
	return m.incarnation != "" && m.system == t.system && t.position < m.position
}

// attend brings the roll up to date. The roll's row is locked. Whether commits were safe is what the roll says of the incarnation before,
// which a restored copy says too. So that counts only if this node has served in that incarnation, in the same
// system, and misses nothing.
func (t *state) attend(m mark) {
	t.fell = t.behind(m)
	changed, now, was := false, t.incarnation(), t.roll.Incarnation
	if now != "" {
		changed = t.roll.Notice(now, t.safe, t.time)
	}
	if t.fell || changed && (m.incarnation != was || m.system != t.system) {
		t.roll.Lost(t.time)
	}
	t.roll.Expire(t.time)
}
