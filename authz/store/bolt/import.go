package bolt

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// Import is apikey.Store.Import. It is one transaction, during which other writes wait: import a few thousand keys at a time.
func (s *Keys) Import(ctx context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	imported, records, faults := keyrecord.SealImport(keys)
	return mutate(ctx, s.db.commits, func(w *write) (apikey.ImportResult, error) {
		add, err := apikey.PlanImport(imported, faults, importView{w})
		if err != nil {
			return apikey.ImportResult{}, err
		}
		result := apikey.ImportResult{Created: len(add), Unchanged: len(imported) - len(add)}
		for _, i := range add {
			madeAccount, err := s.addImported(w, &imported[i], records[i])
			if err != nil {
				return apikey.ImportResult{}, err
			}
			if madeAccount {
				result.Accounts++
			}
		}
		return result, nil
	})
}

// addImported writes one key, and its account if there is none.
func (s *Keys) addImported(w *write, k *apikey.Key, record []byte) (madeAccount bool, err error) {
	if w.get(bucketAccounts, []byte(k.Account)) == nil {
		account := apikey.AccountFor(k)
		if _, err := s.putAccount(w, &account); err != nil {
			return false, err
		}
		madeAccount = true
	}
	if err := indexKey(w, k); err != nil {
		return false, err
	}
	w.afterCommit(func() { s.db.cache.Load().AddDigest(k.Digest) })
	return madeAccount, w.put(bucketDigests, k.Digest[:], record)
}

// importView is an apikey.ImportView.
type importView struct{ w *write }

func (v importView) WithDigest(d apikey.Digest) (*apikey.Key, error) {
	return decodeKey(d[:], v.w.get(bucketDigests, d[:]))
}

func (v importView) HasID(id string) bool { return v.w.get(bucketKeys, []byte(id)) != nil }

func (v importView) AsStored(k *apikey.Key) (*apikey.Key, error) { return keyrecord.AsStored(k) }
