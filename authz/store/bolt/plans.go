package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// planChunk is how many records OnPlans reads in one transaction. During a long transaction bbolt cannot reuse pages, and the
// file would grow.
const planChunk = 10_000

// OnPlans is apikey.Store.OnPlans.
func (s *Keys) OnPlans(ctx context.Context, each func(apikey.PlanUse) error) error {
	return onPlans(func(read func(*bbolt.Tx) error) error { return s.db.view(ctx, read) }, each)
}

// OnPlans is apikey.Store.OnPlans for a file that no server uses.
func (f *File) OnPlans(ctx context.Context, each func(apikey.PlanUse) error) error {
	view := func(read func(*bbolt.Tx) error) error { return viewFile(ctx, f.bolt, read) }
	if err := view(checkCurrent); err != nil {
		return err
	}
	return onPlans(view, each)
}

func onPlans(view func(func(*bbolt.Tx) error) error, each func(apikey.PlanUse) error) error {
	err := inChunks(view, bucketAccounts, func(id, sealed []byte) error {
		a, err := decodeAccount(id, sealed)
		if err != nil || a.Plan == "" {
			return err
		}
		return each(apikey.PlanUse{Plan: a.Plan, Account: a.ID})
	})
	if err != nil {
		return err
	}
	return inChunks(view, bucketDigests, func(digest, sealed []byte) error {
		record, err := keyrecord.Open(digest, sealed)
		if err != nil {
			return err
		}
		use, ok, err := keyrecord.PlanUse(record)
		if err != nil || !ok {
			return err
		}
		return each(use)
	})
}

// inChunks calls each for the records of a bucket, planChunk in each transaction.
func inChunks(view func(func(*bbolt.Tx) error) error, bucket string, each func(key, value []byte) error) error {
	var after []byte
	for more := true; more; {
		err := view(func(tx *bbolt.Tx) error {
			defer dropPages(tx)
			c := tx.Bucket([]byte(bucket)).Cursor()
			k, v := c.Seek(after)
			if after != nil && bytes.Equal(k, after) {
				k, v = c.Next()
			}
			for range planChunk {
				if k == nil {
					more = false
					return nil
				}
				if err := each(k, v); err != nil {
					return err
				}
				after = append(after[:0], k...)
				k, v = c.Next()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
