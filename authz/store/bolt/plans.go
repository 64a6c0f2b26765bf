package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// planChunk is how many records OnPlans reads in one transaction. A long one would keep pages from being used again, and
// the file would grow.
const planChunk = 10_000

// OnPlans is apikey.Store.OnPlans.
func (s *Keys) OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error {
	return onPlans(func(read func(*bbolt.Tx) error) error { return s.db.view(ctx, read) }, each)
}

// OnPlans is apikey.Store.OnPlans, of a file that no server has.
func (f *File) OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error {
	begin := func(context.Context) (*bbolt.Tx, error) { return f.bolt.Begin(false) }
	return onPlans(func(read func(*bbolt.Tx) error) error { return view(ctx, begin, read) }, each)
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
		// Most keys are on their account's plan, and need not be decoded. Within a text the quotes would be escaped; a field
		// of that name in Meta is looked at for nothing.
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

// inChunks goes through the records of a bucket, some in each transaction.
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
