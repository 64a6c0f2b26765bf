package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// Filling is a database that a copy is written into. No server uses it until Finish. Its methods are called by one goroutine.
//
// How far the copy has come is in installation.filling, and each transaction replaces what the one before it has written there. So of
// two copies into one database only one goes on.
type Filling struct {
	entries
	conn *pgx.Conn
	from transfer.Info
	kept *string // what installation.filling has; nil: the database is empty
}

var _ transfer.Target = (*Filling)(nil)

// dataTables are empty in an empty database.
const dataTables = `tollkeeper.accounts, tollkeeper.keys, tollkeeper.revocations, tollkeeper.marks, tollkeeper.holders, tollkeeper.journal, tollkeeper.settled`

// OpenFilling opens a database to be filled. The role must own the schema.
//
// The error is of KindConflict if the database has content that is no unfinished copy, or nodes serve from it.
func OpenFilling(ctx context.Context, o Options) (*Filling, error) {
	conn, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	f := &Filling{entries: entries{conn.Query}, conn: conn}
	if err := f.open(ctx); err != nil {
		_ = f.Close()
		return nil, refusal(err)
	}
	return f, nil
}

func (f *Filling) open(ctx context.Context) error {
	i, err := identify(ctx, f.conn)
	if err != nil {
		return err
	}
	if err := i.checkCopied(); err != nil {
		return err
	}
	if f.kept = i.filling; f.kept != nil {
		return nil
	}
	if err := noNodes(ctx, f.conn); err != nil {
		return err
	}
	empty := false
	if err := f.conn.QueryRow(ctx, `SELECT revision = 0
		AND NOT EXISTS (SELECT FROM tollkeeper.accounts) AND NOT EXISTS (SELECT FROM tollkeeper.keys) AND NOT EXISTS (SELECT FROM tollkeeper.revocations)
		AND NOT EXISTS (SELECT FROM tollkeeper.marks) AND NOT EXISTS (SELECT FROM tollkeeper.holders) AND NOT EXISTS (SELECT FROM tollkeeper.journal)
		AND NOT EXISTS (SELECT FROM tollkeeper.settled) FROM tollkeeper.installation`).Scan(&empty); err != nil {
		return err
	}
	if !empty {
		return refuse("the database is not empty: nothing is written over it")
	}
	return nil
}

// Begin is transfer.Target.Begin.
func (f *Filling) Begin(ctx context.Context, from transfer.Info) (p transfer.Progress, err error) {
	f.from = from
	if f.kept != nil {
		if err := json.Unmarshal([]byte(*f.kept), &p); err != nil {
			return p, authz.Errorf(authz.KindUnavailable, "how far the copy has come cannot be read: %w", err)
		}
	}
	switch again, err := p.GoesOn(from); {
	case err != nil:
		return p, authz.Errorf(authz.KindOf(err), "PostgreSQL: %w", err)
	case again:
		return p, nil
	}
	p = transfer.Progress{Store: from.Store, State: from.State}
	return p, f.step(ctx, p, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `TRUNCATE `+dataTables)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE tollkeeper.installation SET pepper = $1`, from.Pepper)
		}
		return err
	})
}

// step runs a transaction, at the end of which the copy has come that far.
func (f *Filling) step(ctx context.Context, p transfer.Progress, run func(pgx.Tx) error) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	now := string(text)
	return f.replace(ctx, &now, run)
}

// replace runs a transaction that replaces what installation.filling has.
func (f *Filling) replace(ctx context.Context, now *string, run func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, f.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, longTransaction); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE tollkeeper.installation SET filling = $1 WHERE filling IS NOT DISTINCT FROM $2`, now, f.kept)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return authz.Errorf(authz.KindConflict, "another copy writes into the database")
		}
		return run(tx)
	})
	if err != nil {
		return wrap(err)
	}
	f.kept = now
	return nil
}

// Write is transfer.Target.Write.
func (f *Filling) Write(ctx context.Context, batch []transfer.Entry, p transfer.Progress) error {
	if len(batch) == 0 {
		return f.step(ctx, p, func(pgx.Tx) error { return nil })
	}
	// Accounts and keys share the feed with revocations, which keep their revisions: these have the later ones.
	revision := int64(f.from.Revision) + p.Copied[transfer.Accounts] + p.Copied[transfer.Keys] - int64(len(batch))
	in := inserts[batch[0].Section]
	rows := make([][]any, len(batch))
	for i := range batch {
		var err error
		if rows[i], err = in.row(&batch[i], revision+int64(i)+1); err != nil {
			return err
		}
	}
	return f.step(ctx, p, func(tx pgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"tollkeeper", in.table}, in.columns, pgx.CopyFromRows(rows))
		return err
	})
}

// insert says how the entries of a section are written.
type insert struct {
	table   string
	columns []string
	row     func(e *transfer.Entry, revision int64) ([]any, error)
}

var inserts = map[transfer.Section]insert{
	transfer.Accounts:    {"accounts", []string{"id", "plan", "record", "revision"}, rowOfAccount},
	transfer.Keys:        {"keys", []string{"id", "digest", "account", "plan", "record", "revision"}, rowOfKey},
	transfer.Revocations: {"revocations", []string{"kind", "issuer", "value", "expires_at", "expires_ns", "record", "revision"}, rowOfRevocation},
	transfer.Marks:       {"marks", []string{"mark"}, rowOfMark},
	transfer.Holders:     {"holders", []string{"per", "holder", "record"}, rowOfHolder},
	transfer.Journal:     {"journal", []string{"id", "verb", "bucket", "units", "note", "at"}, rowOfUsed},
	transfer.Settled:     {"settled", []string{"id", "at", "answer"}, rowOfSettlement},
}

func rowOfAccount(e *transfer.Entry, revision int64) ([]any, error) {
	a, err := e.Account()
	if err != nil {
		return nil, err
	}
	return []any{[]byte(a.ID), []byte(a.Plan), e.Value, revision}, fit(maxID, a.ID)
}

func rowOfKey(e *transfer.Entry, revision int64) ([]any, error) {
	k, err := e.APIKey()
	if err != nil {
		return nil, err
	}
	return []any{[]byte(k.ID), k.Digest[:], []byte(k.Account), []byte(k.Plan), e.Value, revision}, fit(maxID, k.ID, k.Account)
}

func rowOfRevocation(e *transfer.Entry, _ int64) ([]any, error) {
	r, err := e.Revocation()
	if err != nil {
		return nil, err
	}
	at, rest := instant(r.ExpiresAt)
	return []any{string(r.Kind), []byte(r.Issuer), []byte(r.Value), at, rest, e.Value, int64(r.Revision)}, fit(maxName, r.Issuer, r.Value)
}

func rowOfMark(e *transfer.Entry, _ int64) ([]any, error) { return []any{e.Value}, nil }

func rowOfHolder(e *transfer.Entry, _ int64) ([]any, error) {
	h, err := e.Holder()
	if err != nil {
		return nil, err
	}
	return []any{string(h.Per), []byte(h.Holder), e.Value}, checkHolder(h)
}

func rowOfUsed(e *transfer.Entry, _ int64) ([]any, error) {
	u, err := e.Used()
	if err != nil {
		return nil, err
	}
	return []any{e.Key, u.Verb, []byte(u.Bucket.Key()), u.Units, []byte(u.Note), u.At}, fit(maxLedgerID, string(e.Key))
}

func rowOfSettlement(e *transfer.Entry, _ int64) ([]any, error) {
	s, err := e.Settlement()
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(&s.Answer)
	if err != nil {
		return nil, err
	}
	return []any{e.Key, s.At, answer}, fit(maxLedgerID, string(e.Key))
}

// fit refuses names that the tables do not hold. A file holds longer ones.
func fit(limit int, names ...string) error {
	for _, name := range names {
		if len(name) > limit {
			return authz.Errorf(authz.KindInvalid, "%.80q... has %d bytes: PostgreSQL holds names of at most %d here", name, len(name), limit)
		}
	}
	return nil
}

// Complete is transfer.Target.Complete. PostgreSQL makes its indexes by itself, and has to know how full the tables are.
func (f *Filling) Complete(ctx context.Context) error {
	_, err := f.conn.Exec(ctx, `ANALYZE `+dataTables)
	return wrap(err)
}

// Finish is transfer.Target.Finish.
func (f *Filling) Finish(ctx context.Context) error {
	return f.replace(ctx, nil, func(tx pgx.Tx) error {
		var last int64
		if err := tx.QueryRow(ctx, `UPDATE tollkeeper.installation
			SET revision = $1::bigint + (SELECT count(*) FROM tollkeeper.accounts) + (SELECT count(*) FROM tollkeeper.keys) RETURNING revision`,
			int64(f.from.Revision)).Scan(&last); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO tollkeeper.feed (revision, token) VALUES ($1, gen_random_uuid()) ON CONFLICT (revision)
			DO UPDATE SET token = excluded.token`, last)
		return err
	})
}

// Close closes the connection.
func (f *Filling) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return wrap(f.conn.Close(ctx))
}
