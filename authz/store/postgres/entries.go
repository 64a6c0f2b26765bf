package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// entries reads a database in the neutral form. The order is that of an index of each table, and the cursor is the key of the last
// entry.
type entries struct {
	query func(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// section says where the entries of a section are.
type section struct {
	table   string
	columns string
	order   string // columns of an index, which make the key of an entry
	parts   int    // how many columns these are
	scan    func(pgx.Rows) (transfer.Entry, error)
}

var sections = map[transfer.Section]section{
	transfer.Accounts:    {"accounts", "id, record", "id", 1, entryOfAccount},
	transfer.Keys:        {"keys", "digest, record", "digest", 1, entryOfKey},
	transfer.Revocations: {"revocations", "revision, record", "kind, issuer, value", 3, entryOfRevocation},
	transfer.Marks:       {"marks", "mark::text", "only_row", 0, entryOfMark},
	transfer.Holders:     {"holders", "per, holder, record", "per, holder", 2, entryOfHolder},
	transfer.Journal:     {"journal", "id, verb, bucket, units, note, at", "id", 1, entryOfUsed},
	transfer.Settled:     {"settled", "id, at, answer::text", "id", 1, entryOfSettlement},
}

// Read is transfer.Source.Read.
func (s *entries) Read(ctx context.Context, of transfer.Section, from []byte, limit int, each func(*transfer.Entry) error) (next []byte, err error) {
	sec := sections[of]
	where, args := "", []any{limit}
	if from != nil {
		cursor, err := sec.cursor(from)
		if err != nil {
			return nil, err
		}
		where, args = fmt.Sprintf("WHERE (%s) > (%s)", sec.order, placeholders[:4*sec.parts-2]), append(args, cursor...)
	}
	rows, err := s.query(ctx, fmt.Sprintf("SELECT %s FROM tollkeeper.%s %s ORDER BY %s LIMIT $1", sec.columns, sec.table, where, sec.order), args...)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		e, err := sec.scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s in PostgreSQL: %w", sec.table, wrap(err))
		}
		if n++; n == limit {
			next = e.Key
		}
		if err := each(&e); err != nil {
			return nil, err
		}
	}
	return next, wrap(rows.Err())
}

// placeholders are those of a cursor, after the limit.
const placeholders = "$2, $3, $4, "

// cursor is the values of the columns by which a section is ordered.
func (s *section) cursor(key []byte) ([]any, error) {
	parts, ok := transfer.Split(key, s.parts)
	if !ok {
		return nil, authz.Errorf(authz.KindInvalid, "%q is no place in %s", key, s.table)
	}
	var out []any
	for i, part := range parts {
		if i == 0 && s.parts > 1 { // kind and per are text
			out = append(out, part)
		} else {
			out = append(out, []byte(part))
		}
	}
	return out, nil
}

func entryOfAccount(rows pgx.Rows) (e transfer.Entry, err error) {
	var id, sealed []byte
	if err := rows.Scan(&id, &sealed); err != nil {
		return e, err
	}
	a, err := keyrecord.OpenAccount(string(id), sealed)
	if err != nil {
		return e, fmt.Errorf("%q: %w", id, err)
	}
	return transfer.OfAccount(a), nil
}

func entryOfKey(rows pgx.Rows) (e transfer.Entry, err error) {
	var digest, sealed []byte
	if err := rows.Scan(&digest, &sealed); err != nil {
		return e, err
	}
	if len(digest) != len(apikey.Digest{}) {
		return e, authz.Errorf(authz.KindUnavailable, "a key has a digest of %d bytes", len(digest))
	}
	k, err := keyrecord.OpenKey(apikey.Digest(digest), sealed)
	if err != nil {
		return e, fmt.Errorf("the key with digest %x: %w", digest, err)
	}
	return transfer.OfKey(k), nil
}

func entryOfRevocation(rows pgx.Rows) (e transfer.Entry, err error) {
	var revision int64
	var body []byte
	if err := rows.Scan(&revision, &body); err != nil {
		return e, err
	}
	var r revocation.Record
	if err := json.Unmarshal(body, &r); err != nil {
		return e, authz.Errorf(authz.KindUnavailable, "the revocation of revision %d is damaged: %w", revision, err)
	}
	r.Revision = uint64(revision)
	return transfer.OfRevocation(&r)
}

func entryOfMark(rows pgx.Rows) (e transfer.Entry, err error) {
	var body string
	if err := rows.Scan(&body); err != nil {
		return e, err
	}
	var m revocation.Mark
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return e, authz.Errorf(authz.KindUnavailable, "the mark of the revocations is damaged: %w", err)
	}
	return transfer.OfMark(&m)
}

func entryOfHolder(rows pgx.Rows) (e transfer.Entry, err error) {
	var h quota.HolderID
	var holder, body []byte
	if err := rows.Scan((*string)(&h.Per), &holder, &body); err != nil {
		return e, err
	}
	h.Holder = string(holder)
	r, err := quota.DecodeRecord(body)
	if err != nil {
		return e, fmt.Errorf("%s %q: %w", h.Per, h.Holder, err)
	}
	return transfer.OfHolder(h, r)
}

func entryOfUsed(rows pgx.Rows) (e transfer.Entry, err error) {
	var u transfer.Used
	var id, bucket, note []byte
	if err := rows.Scan(&id, &u.Verb, &bucket, &u.Units, &note, &u.At); err != nil {
		return e, err
	}
	u.Note = string(note)
	if u.Bucket, err = quota.ParseKey(string(bucket)); err != nil {
		return e, authz.Errorf(authz.KindUnavailable, "id %q was used for a bucket that cannot be read: %w", id, err)
	}
	return transfer.OfUsed(string(id), u)
}

func entryOfSettlement(rows pgx.Rows) (e transfer.Entry, err error) {
	var s transfer.Settlement
	var id []byte
	var at time.Time
	var answer string
	if err := rows.Scan(&id, &at, &answer); err != nil {
		return e, err
	}
	s.At = at
	if err := json.Unmarshal([]byte(answer), &s.Answer); err != nil {
		return e, authz.Errorf(authz.KindUnavailable, "settlement %q cannot be read: %w", id, err)
	}
	return transfer.OfSettlement(string(id), s)
}
