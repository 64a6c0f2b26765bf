package postgres

import (
	"context"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ledger is a quota.Ledger. quota.Record does the arithmetic. change.go is a transaction, batch.go has verbs share transactions, state.go
// tells whether the server may have lost commits, and members.go is the nodes.
//
// Everything goes by the clock of the database. A node is gone when a transaction that holds the lock on the roll has removed it, so that no
// other one can renew its session at the same time.
type Ledger struct {
	db    *DB
	lanes *lanes
	alter func(*state) // of tests: what a server tells; nil otherwise

	mu      sync.Mutex
	query   string // reads the state; "": the server was not asked yet
	mark    mark
	members []quota.NodeID // when it was read last
	joined  map[quota.NodeID]struct{}

	start    sync.Once
	messages *messages // after start
}

var _ quota.Ledger = (*Ledger)(nil)

// Ledger returns the quotas of the database.
func (db *DB) Ledger() *Ledger { return db.ledger }

func newLedger(db *DB) *Ledger {
	s := &Ledger{db: db, joined: make(map[quota.NodeID]struct{})}
	s.lanes = newLanes(db.o.MaxConnections, func(ctx context.Context, asks []*ask, wait bool) error {
		return (&change{s: s, asks: asks, wait: wait}).run(ctx)
	})
	return s
}

func (s *Ledger) close() { s.lanes.close() }

var errClosed = authz.Errorf(authz.KindUnavailable, "the store is closed")

func unavailable(err error) error {
	return authz.Errorf(authz.KindUnavailable, "the ledger has not answered yet: %w", err)
}

const (
	maxHolder   = 2048 // bytes, as in the schema
	maxPer      = 100
	maxLedgerID = 2048
)

// checkHolder refuses what no row can have as its key.
func checkHolder(h quota.HolderID) error {
	switch {
	case len(h.Holder) > maxHolder:
		return authz.Errorf(authz.KindInvalid, "the name of the holder has %d bytes: at most %d can be stored", len(h.Holder), maxHolder)
	case len(h.Per) > maxPer || !utf8.ValidString(string(h.Per)) || strings.ContainsRune(string(h.Per), 0):
		return authz.Errorf(authz.KindInvalid, "%q is not what a limit counts per", h.Per)
	}
	return nil
}

func checkID(id, verb string) error {
	switch {
	case id == "":
		return authz.Errorf(authz.KindInvalid, "a %s needs an id", verb)
	case len(id) > maxLedgerID:
		return authz.Errorf(authz.KindInvalid, "the id of a %s has %d bytes: at most %d can be stored", verb, len(id), maxLedgerID)
	}
	return nil
}

// Lease is quota.Ledger.Lease.
func (s *Ledger) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	rs, out := cloneRequests(rs), make([]quota.Answer, len(rs))
	asks := make([]*ask, 0, len(rs))
	for i := range rs {
		if out[i].Err = checkHolder(rs[i].Holder); out[i].Err == nil {
			asks = append(asks, &ask{holder: rs[i].Holder, apply: func(c *change, k *kept) { c.lease(&rs[i], &out[i], k) }})
		}
	}
	if err := s.lanes.do(ctx, asks); err != nil {
		return nil, err
	}
	return out, nil
}

// cloneRequests copies requests: a transaction may read them after the caller has given up.
func cloneRequests(rs []quota.LeaseRequest) []quota.LeaseRequest {
	n := 0
	for i := range rs {
		n += len(rs[i].Parts)
	}
	out, parts := make([]quota.LeaseRequest, len(rs)), make([]quota.LeasePart, 0, n)
	for i := range rs {
		begin := len(parts)
		parts = append(parts, rs[i].Parts...)
		out[i] = rs[i]
		out[i].Parts = parts[begin:len(parts):len(parts)]
	}
	return out
}

// lease carries out one request. A record that is damaged refuses its own holder, and none of the others.
func (c *change) lease(r *quota.LeaseRequest, a *quota.Answer, k *kept) {
	if k.damage != nil {
		*a = quota.Answer{Err: authz.Errorf(authz.KindConflict, "nothing was leased: %w", k.damage)}
		return
	}
	*a = k.record.Lease(r, c.at)
	k.changed = k.changed || a.Err == nil
	c.lost = c.lost || a.Lost
}

// Settle is quota.Ledger.Settle.
func (s *Ledger) Settle(ctx context.Context, r quota.SettleRequest) (quota.Settlement, error) {
	if err := checkID(r.ID, "settlement"); err != nil {
		return quota.Settlement{}, err
	}
	if err := checkHolder(r.Bucket.HolderID()); err != nil {
		return quota.Settlement{}, err
	}
	var (
		out     quota.Settlement
		refused error
	)
	a := &ask{holder: r.Bucket.HolderID(), id: r.ID, apply: func(c *change, k *kept) { out, refused = c.settle(&r, k) }}
	if err := s.lanes.do(ctx, []*ask{a}); err != nil {
		return quota.Settlement{}, err
	}
	return out, refused
}

func (c *change) settle(r *quota.SettleRequest, k *kept) (quota.Settlement, error) {
	if k.damage != nil {
		return quota.Settlement{}, k.damage
	}
	if old, ok := c.settled[r.ID]; ok && c.at.Time.Sub(old.at) <= quota.SettleMemory {
		k.changed = true
		return old.answer, nil
	}
	answer, err := k.record.Book(r.Bucket.CountKey()).Settle(*r, c.at)
	if err != nil {
		return quota.Settlement{}, err
	}
	k.changed = true
	c.settled[r.ID] = settled{c.at.Time, answer}
	c.settles = append(c.settles, r.ID)
	return answer, nil
}

// Credit is quota.Ledger.Credit.
func (s *Ledger) Credit(ctx context.Context, r quota.CreditRequest) (quota.Balance, error) {
	e := entry{verb: "credit", bucket: r.Bucket, units: r.Units, note: r.Note}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Credit(r, at.Time) })
}

// Reset is quota.Ledger.Reset.
func (s *Ledger) Reset(ctx context.Context, r quota.ResetRequest) (quota.Balance, error) {
	e := entry{verb: "reset", bucket: r.Bucket}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Reset(r, at) })
}

// Release is quota.Ledger.Release.
func (s *Ledger) Release(ctx context.Context, r quota.ReleaseRequest) (quota.Balance, error) {
	e := entry{verb: "release", bucket: r.Bucket, units: r.Units, note: string(r.Node)}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Release(r, at) })
}

// once applies a verb unless its id was used before, and returns the balance. It has a transaction of its own.
func (s *Ledger) once(ctx context.Context, id string, e entry, l authz.Limit, verb func(*quota.Book, quota.Instant) error) (quota.Balance, error) {
	if err := checkID(id, e.verb); err != nil {
		return quota.Balance{}, err
	}
	if err := checkHolder(e.bucket.HolderID()); err != nil {
		return quota.Balance{}, err
	}
	var (
		out     quota.Balance
		refused error
	)
	a := &ask{holder: e.bucket.HolderID(), apply: func(c *change, k *kept) {
		if refused = c.once(id, e, k, verb); refused == nil {
			out = k.record.Clone().Book(e.bucket.CountKey()).Balance(e.bucket, l, c.at)
		}
	}}
	if err := (&change{s: s, asks: []*ask{a}, wait: true, journal: id}).run(ctx); err != nil {
		return quota.Balance{}, err
	}
	return out, refused
}

func (c *change) once(id string, e entry, k *kept, verb func(*quota.Book, quota.Instant) error) error {
	if k.damage != nil {
		return k.damage
	}
	switch old := c.used; {
	case old == nil:
		if err := verb(k.record.Book(e.bucket.CountKey()), c.at); err != nil {
			return err
		}
		c.enters = &e
	case old.verb != e.verb || old.bucket != e.bucket || old.units != e.units:
		return authz.Errorf(authz.KindConflict, "id %q was used for a %s of something else", id, old.verb)
	}
	k.changed = true
	return nil
}

// Balance is quota.Ledger.Balance.
func (s *Ledger) Balance(ctx context.Context, b quota.Bucket, l authz.Limit) (quota.Balance, error) {
	if err := checkHolder(b.HolderID()); err != nil {
		return quota.Balance{}, err
	}
	var (
		t    state
		text []byte
	)
	err := s.look(ctx, &t, func(batch *pgx.Batch) {
		const query = `SELECT record FROM tollkeeper.holders WHERE per = $1 AND holder = $2`
		batch.Queue(query, string(b.Per), []byte(b.Holder)).Query(func(rows pgx.Rows) error {
			text = nil
			for rows.Next() {
				if err := rows.Scan(&text); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	})
	if err != nil {
		return quota.Balance{}, err
	}
	record := &quota.Record{}
	if text != nil {
		if record, err = decodeRecord(b.HolderID(), text); err != nil {
			return quota.Balance{}, err
		}
	}
	return record.Book(b.CountKey()).Balance(b, l, t.instant()), nil
}

func decodeRecord(h quota.HolderID, text []byte) (*quota.Record, error) {
	record, err := quota.DecodeRecord(text)
	if err != nil {
		return nil, authz.Errorf(authz.KindOf(err), "the record of %s %q: %w", h.Per, h.Holder, err)
	}
	return record, nil
}

// look reads in one round trip, and the state with it.
func (s *Ledger) look(ctx context.Context, t *state, queue func(*pgx.Batch)) error {
	query, err := s.stateQuery(ctx)
	if err != nil {
		return err
	}
	return s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		b := &pgx.Batch{}
		queue(b)
		b.Queue(query).QueryRow(s.scanState(t))
		return conn.SendBatch(ctx, b).Close()
	})
}
