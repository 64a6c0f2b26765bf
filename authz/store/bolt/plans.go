package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// planChunk is how many records OnPlans reads in one transaction. During a long transaction bbolt cannot reuse pages, and the
// file would grow.
const planChunk = 10_000

// OnPlans is apikey.Store.OnPlans.
func (s *Keys) OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error {
	return onPlans(func(read func(*bbolt.Tx) error) error { return s.db.view(ctx, read) }, each)
}

// OnPlans is apikey.Store.OnPlans for a file that no server uses.
func (f *File) OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error {
	begin := func(context.Context) (*bbolt.Tx, error) { return f.bolt.Begin(false) }
	return onPlans(func(read func(*bbolt.Tx) error) error { return viewTx(ctx, begin, read) }, each)
}

func onPlans(view func(func(*bbolt.Tx) error) error, each func(*apikey.Account, *apikey.Key) error) error {
	err := inChunks(view, bucketAccounts, func(text []byte) error {
		a, err := decode[apikey.Account](text)
		if err != nil {
			return err
		}
		return each(a, nil)
	})
	if err != nil {
		return err
	}
	return inChunks(view, bucketKeys, func(text []byte) error {
		// Most keys are on their account's plan, and need not be decoded. Quotes within a text would be escaped, so nothing is
		// missed; a field of that name in Meta costs a needless look.
		if !bytes.Contains(text, []byte(`"plan":"`)) {
			return nil
		}
		k, err := decode[apikey.Key](text)
		if err != nil || k.Plan == "" {
			return err
		}
		return each(nil, k)
	})
}

// inChunks calls each for the records of a bucket, planChunk in each transaction.
func inChunks(view func(func(*bbolt.Tx) error) error, bucket string, each func(text []byte) error) error {
	var after []byte
	for more := true; more; {
		err := view(func(tx *bbolt.Tx) error {
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
				if err := each(v); err != nil {
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
