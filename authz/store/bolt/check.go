package bolt

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// part is something in the file that can be checked by itself.
type part struct {
	name  string
	check func(*bbolt.Tx) error
}

// parts are in the order in which they have to be checked: on damaged pages nothing else may be read, and without the
// buckets of our format there is nothing to read.
func parts() []part {
	return []part{
		{"pages", checkPages}, {"format", checkFormat}, {"accounts", checkAccounts}, {"keys", checkKeys},
		{"revocations", checkRevocations}, {"books", checkBooks}, {"settlements", checkSettled}, {"journal", checkJournal},
	}
}

// Parts are the names that CheckPart knows, in the order in which they have to be checked. Where one is wrong, those
// after it may say anything.
func Parts() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Check walks the whole file and returns an error that names the first thing that is wrong with it: pages, records that
// cannot be read, keys without an account, indexes that do not agree with what they point at, books whose sums do not
// come out. It does not hold up reads or writes.
func (db *DB) Check(ctx context.Context) error {
	return db.view(ctx, func(tx *bbolt.Tx) error {
		defer rest(tx)
		for _, p := range parts() {
			if err := ctx.Err(); err != nil {
				return authz.Errorf(authz.KindUnavailable, "not checked to the end: %w", err)
			}
			if err := p.check(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// CheckPart is Check for one of Parts. A name that is not among them is KindInvalid.
func (db *DB) CheckPart(ctx context.Context, name string) error {
	return checkPart(name, func(check func(*bbolt.Tx) error) error {
		return db.view(ctx, func(tx *bbolt.Tx) error {
			defer rest(tx)
			return check(tx)
		})
	})
}

func checkPart(name string, view func(func(*bbolt.Tx) error) error) error {
	for _, p := range parts() {
		if p.name == name {
			return view(p.check)
		}
	}
	return authz.Errorf(authz.KindInvalid, "the file has no part %q", name)
}

// each decodes every record of a bucket and returns how many there are.
func each[T any](tx *bbolt.Tx, bucket string, check func(key []byte, v *T) error) (int, error) {
	n := 0
	err := tx.Bucket([]byte(bucket)).ForEach(func(k, text []byte) error {
		n++
		v := new(T)
		if err := json.Unmarshal(text, v); err != nil {
			return damaged("record %q in %q: %w", k, bucket, err)
		}
		return check(k, v)
	})
	return n, err
}

// sameSize checks that an index has as many entries as there are records. Where every record has its own entry, there
// is then none that points nowhere.
func sameSize(tx *bbolt.Tx, index string, records int) error {
	n := 0
	if err := tx.Bucket([]byte(index)).ForEach(func(_, _ []byte) error { n++; return nil }); err != nil {
		return err
	}
	if n != records {
		return damaged("%q has %d entries for %d records", index, n, records)
	}
	return nil
}

func checkAccounts(tx *bbolt.Tx) error {
	_, err := each(tx, bucketAccounts, func(id []byte, a *apikey.Account) error {
		if a.ID != string(id) || a.Version == 0 {
			return damaged("account %q, version %d, stands in the place of %q", a.ID, a.Version, id)
		}
		return nil
	})
	return err
}

func checkKeys(tx *bbolt.Tx) error {
	accounts, digests, listed := tx.Bucket([]byte(bucketAccounts)), tx.Bucket([]byte(bucketDigests)), tx.Bucket([]byte(bucketAccountKeys))
	n, err := each(tx, bucketKeys, func(id []byte, k *apikey.Key) error {
		switch {
		case k.ID != string(id) || k.Version == 0:
			return damaged("key %q, version %d, stands in the place of %q", k.ID, k.Version, id)
		case accounts.Get([]byte(k.Account)) == nil:
			return damaged("key %q belongs to account %q, which is not there", id, k.Account)
		case string(digests.Get(k.Digest[:])) != k.ID:
			return damaged("key %q is not found by its digest", id)
		case listed.Get(join(k.Account, k.ID)) == nil:
			return damaged("key %q is not listed among those of account %q", id, k.Account)
		case k.Successor != "" && tx.Bucket([]byte(bucketKeys)).Get([]byte(k.Successor)) == nil:
			return damaged("key %q was replaced by %q, which is not there", id, k.Successor)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(tx, bucketDigests, n); err != nil {
		return err
	}
	return sameSize(tx, bucketAccountKeys, n)
}

func checkRevocations(tx *bbolt.Tx) error {
	revisions := tx.Bucket([]byte(bucketRevisions))
	expiries, expire := tx.Bucket([]byte(bucketExpiries)), 0
	indexed := expiriesIndexed(tx) // else the file was last written by an older version
	n, err := each(tx, bucketRevoked, func(key []byte, r *revocation.Record) error {
		if string(matcher(r.Kind, r.Issuer, r.Value)) != string(key) {
			return damaged("the revocation of %s %q stands in the place of another", r.Kind, r.Value)
		}
		if string(revisions.Get(number(r.Revision))) != string(key) || r.Revision > revisions.Sequence() {
			return damaged("the revocation of %s %q is not found by its revision %d", r.Kind, r.Value, r.Revision)
		}
		if r.ExpiresAt.IsZero() {
			return nil
		}
		expire++
		if indexed && expiries.Get(expiry(r.ExpiresAt, key)) == nil {
			return damaged("the revocation of %s %q is not found by the instant at which it expires", r.Kind, r.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(tx, bucketRevisions, n); err != nil || !indexed {
		return err
	}
	return sameSize(tx, bucketExpiries, expire)
}

func checkBooks(tx *bbolt.Tx) error {
	_, err := each(tx, bucketBooks, func(key []byte, b *quota.Book) error {
		if err := b.Check(); err != nil {
			return authz.Errorf(authz.KindConflict, "bucket %q: %w", key, err)
		}
		return nil
	})
	return err
}

func checkSettled(tx *bbolt.Tx) error {
	index := tx.Bucket([]byte(bucketSettledAt))
	n, err := each(tx, bucketSettled, func(id []byte, s *settled) error {
		if index.Get(settledAt(s.At, string(id))) == nil {
			return damaged("settlement %q is not found by its instant", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(tx, bucketSettledAt, n); err != nil {
		return err
	}
	return index.ForEach(func(k, _ []byte) error {
		if len(k) < binary.Size(uint64(0)) {
			return damaged("an entry in %q is cut short", bucketSettledAt)
		}
		return nil
	})
}

func checkJournal(tx *bbolt.Tx) error {
	_, err := each(tx, bucketJournal, func(id []byte, e *entry) error {
		if e.Verb != "credit" && e.Verb != "reset" {
			return damaged("id %q was used for %q", id, e.Verb)
		}
		return nil
	})
	return err
}
