package bolt

import (
	"context"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// Import is apikey.Store.Import. It is one transaction, during which other writes wait: import a few thousand keys at a time.
func (s *Keys) Import(ctx context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	imported, texts, faults := encodeImport(keys)
	return mutate(ctx, s.db.commits, func(w *write) (apikey.ImportResult, error) {
		add, err := apikey.PlanImport(imported, faults, importView{w})
		if err != nil {
			return apikey.ImportResult{}, err
		}
		result := apikey.ImportResult{Created: len(add), Unchanged: len(imported) - len(add)}
		for _, i := range add {
			madeAccount, err := s.addImported(w, &imported[i], texts[i])
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

// encodeImport writes the keys as JSON before the transaction begins, and says which of them cannot be written.
func encodeImport(keys []apikey.Key) (imported []apikey.Key, texts [][]byte, faults map[int]string) {
	imported, texts, faults = make([]apikey.Key, len(keys)), make([][]byte, len(keys)), make(map[int]string)
	for i, k := range keys {
		k.Version = 1
		if k.Lineage == "" {
			k.Lineage = k.ID
		}
		text, err := encode(&k)
		if err != nil {
			faults[i] = fmt.Sprintf("key %q %v", k.ID, err)
		}
		imported[i], texts[i] = k, text
	}
	return imported, texts, faults
}

// addImported writes one key, and its account if there is none.
func (s *Keys) addImported(w *write, k *apikey.Key, text []byte) (madeAccount bool, err error) {
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
	w.afterCommit(func() { s.db.cache.Load().putDigest(k.Digest) })
	return madeAccount, w.put(bucketKeys, []byte(k.ID), text)
}

// importView is an apikey.ImportView.
type importView struct{ w *write }

func (v importView) WithDigest(d apikey.Digest) (*apikey.Key, error) {
	id := v.w.get(bucketDigests, d[:])
	if id == nil {
		return nil, nil
	}
	k, err := decode[apikey.Key](v.w.get(bucketKeys, id))
	if err == nil && k == nil {
		err = authz.Errorf(authz.KindUnavailable, "the data file is damaged: a digest leads to key %q, which is not there", id)
	}
	return k, err
}

func (v importView) HasID(id string) bool { return v.w.get(bucketKeys, []byte(id)) != nil }

func (v importView) AsStored(k *apikey.Key) (*apikey.Key, error) {
	text, err := encode(k)
	if err != nil {
		return nil, err
	}
	return decode[apikey.Key](text)
}
