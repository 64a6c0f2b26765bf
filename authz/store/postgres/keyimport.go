package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

const (
	// importPage is how many keys of an import are compared or written in one statement.
	importPage = 5000
	// importWait is how long an import may take, and importWaitPerKey what each key adds.
	importWait       = 10 * time.Second
	importWaitPerKey = time.Millisecond
	// maxID is how long the ids of keys and accounts may be: an index entry holds both.
	maxID = 1024
)

// Import is apikey.Store.Import. It is one transaction. While it writes, other writes of keys and revocations wait: import a few
// thousand keys at a time.
func (s *Keys) Import(ctx context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	imported, records, faults := sealImport(keys)
	ctx, cancel := context.WithTimeout(ctx, importWait+time.Duration(len(keys))*importWaitPerKey)
	defer cancel()
	var result apikey.ImportResult
	err := s.write(ctx, func(ctx context.Context, w *keyWrite) error {
		view := importView{keys: imported, read: func(page []apikey.Key) (storedPage, error) { return w.readPage(ctx, page) }}
		add, err := apikey.PlanImport(imported, faults, &view)
		if view.err != nil {
			return view.err
		}
		if err != nil {
			return err
		}
		rows := make([]importRow, 0, len(add))
		for _, i := range add {
			k := &imported[i]
			rows = append(rows, importRow{id: k.ID, digest: k.Digest[:], account: k.Account, plan: k.Plan, sealed: records[i]})
		}
		accounts, err := w.newAccounts(ctx, imported, add)
		if err != nil {
			return err
		}
		result = apikey.ImportResult{Created: len(add), Unchanged: len(imported) - len(add), Accounts: len(accounts)}
		return w.addRows(ctx, accounts, rows)
	})
	if err != nil {
		return apikey.ImportResult{}, err
	}
	return result, nil
}

// sealImport is keyrecord.SealImport, with what a row cannot hold among the faults.
func sealImport(keys []apikey.Key) (imported []apikey.Key, records [][]byte, faults map[int]string) {
	imported, records, faults = keyrecord.SealImport(keys)
	for i := range imported {
		if k := &imported[i]; faults[i] == "" && (len(k.ID) > maxID || len(k.Account) > maxID) {
			faults[i] = fmt.Sprintf("key %.80q... has an id or an account of more than %d bytes", k.ID, maxID)
		}
	}
	return imported, records, faults
}

// storedPage is what is stored under the digests and ids of some keys of an import.
type storedPage struct {
	records map[apikey.Digest][]byte // nil: the digest is not stored
	ids     map[string]bool
}

// importView is an apikey.ImportView, which is asked in the order of the keys. It reads a page of them at a time.
type importView struct {
	keys []apikey.Key // those that were not read yet
	read func(page []apikey.Key) (storedPage, error)
	page storedPage
	err  error // of HasID
}

// next reads the next page.
func (v *importView) next() error {
	n := min(importPage, len(v.keys))
	if n == 0 {
		return authz.Errorf(authz.KindUnavailable, "an import asked for a key that it does not have")
	}
	page, err := v.read(v.keys[:n])
	v.page, v.keys = page, v.keys[n:]
	return err
}

// WithDigest is apikey.ImportView.WithDigest.
func (v *importView) WithDigest(d apikey.Digest) (*apikey.Key, error) {
	for {
		sealed, ok := v.page.records[d]
		switch {
		case sealed != nil:
			return keyrecord.OpenKey(d, sealed)
		case ok:
			return nil, nil
		}
		if err := v.next(); err != nil {
			return nil, err
		}
	}
}

// HasID is apikey.ImportView.HasID.
func (v *importView) HasID(id string) bool {
	for v.err == nil {
		if has, ok := v.page.ids[id]; ok {
			return has
		}
		v.err = v.next()
	}
	return true
}

// AsStored is apikey.ImportView.AsStored.
func (v *importView) AsStored(k *apikey.Key) (*apikey.Key, error) { return keyrecord.AsStored(k) }

// readPage reads what is stored under the digests and ids of some keys.
func (w *keyWrite) readPage(ctx context.Context, page []apikey.Key) (storedPage, error) {
	out := storedPage{records: make(map[apikey.Digest][]byte, len(page)), ids: make(map[string]bool, len(page))}
	digests, ids := make([][]byte, len(page)), make([][]byte, len(page))
	for i := range page {
		digests[i], ids[i] = page[i].Digest[:], []byte(page[i].ID)
		out.records[page[i].Digest], out.ids[page[i].ID] = nil, false
	}
	b := &pgx.Batch{}
	b.Queue(`SELECT digest, record FROM tollkeeper.keys WHERE digest = ANY($1)`, digests).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var digest, sealed []byte
			if err := rows.Scan(&digest, &sealed); err != nil {
				return err
			}
			out.records[apikey.Digest(digest)] = sealed
		}
		return rows.Err()
	})
	b.Queue(`SELECT id FROM tollkeeper.keys WHERE id = ANY($1)`, ids).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id []byte
			if err := rows.Scan(&id); err != nil {
				return err
			}
			out.ids[string(id)] = true
		}
		return rows.Err()
	})
	return out, w.tx.SendBatch(ctx, b).Close()
}

// importRow is a row of keys or accounts.
type importRow struct {
	id            string
	digest        []byte // of a key
	account, plan string
	sealed        []byte
}

// newAccounts returns the accounts of the keys that are not stored.
func (w *keyWrite) newAccounts(ctx context.Context, keys []apikey.Key, add []int) ([]importRow, error) {
	var out []importRow
	known := make(map[string]bool) // all that were looked at
	for len(add) > 0 {
		n := min(importPage, len(add))
		first := make(map[string]int, n) // the keys that decide what a new account is
		var ids [][]byte
		for _, i := range add[:n] {
			if id := keys[i].Account; !known[id] {
				known[id], first[id] = true, i
				ids = append(ids, []byte(id))
			}
		}
		rows, err := w.tx.Query(ctx, `SELECT id FROM tollkeeper.accounts WHERE id = ANY($1)`, ids)
		if err != nil {
			return nil, err
		}
		there, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return nil, err
		}
		for _, id := range there {
			delete(first, string(id))
		}
		for _, id := range ids {
			i, ok := first[string(id)]
			if !ok {
				continue
			}
			a := apikey.AccountFor(&keys[i])
			sealed, err := keyrecord.SealAccount(&a)
			if err != nil {
				return nil, err
			}
			out = append(out, importRow{id: a.ID, plan: a.Plan, sealed: sealed})
		}
		add = add[n:]
	}
	return out, nil
}

const (
	insertAccounts = `INSERT INTO tollkeeper.accounts (id, plan, record, revision)
		SELECT id, plan, record, $1::bigint + n FROM unnest($2::bytea[], $3::bytea[], $4::bytea[]) WITH ORDINALITY AS a (id, plan, record, n)`
	insertKeys = `INSERT INTO tollkeeper.keys (id, plan, record, digest, account, revision)
		SELECT id, plan, record, digest, account, $1::bigint + n
		FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[]) WITH ORDINALITY AS k (id, plan, record, digest, account, n)`
)

// addRows takes the revisions and writes the rows.
func (w *keyWrite) addRows(ctx context.Context, accounts, keys []importRow) error {
	total := int64(len(accounts) + len(keys))
	if total == 0 {
		return nil
	}
	b := &pgx.Batch{}
	w.place.take(b, total)
	if err := w.tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	before := w.place.Revision - total
	w.changes = make([]keyChange, 0, total)
	for _, rows := range [][]importRow{accounts, keys} {
		for len(rows) > 0 {
			n := min(importPage, len(rows))
			if err := w.addPage(ctx, before, rows[:n]); err != nil {
				return err
			}
			before, rows = before+int64(n), rows[n:]
		}
	}
	_, err := w.tx.Exec(ctx, notifyFeed)
	return err
}

// addPage writes rows of one table, with the revisions after before.
func (w *keyWrite) addPage(ctx context.Context, before int64, rows []importRow) error {
	var ids, plans, records, digests, accounts [][]byte
	isKey := rows[0].digest != nil
	for i, r := range rows {
		ids, plans, records = append(ids, []byte(r.id)), append(plans, []byte(r.plan)), append(records, r.sealed)
		c := keyChange{revision: before + 1 + int64(i), isKey: isKey, name: r.digest, sealed: r.sealed}
		if isKey {
			digests, accounts = append(digests, r.digest), append(accounts, []byte(r.account))
		} else {
			c.name = []byte(r.id)
		}
		w.changes = append(w.changes, c)
	}
	var err error
	if isKey {
		_, err = w.tx.Exec(ctx, insertKeys, before, ids, plans, records, digests, accounts)
	} else {
		_, err = w.tx.Exec(ctx, insertAccounts, before, ids, plans, records)
	}
	return err
}
