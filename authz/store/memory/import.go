package memory

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// Import is apikey.Store.Import.
func (s *Keys) Import(_ context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add, err := apikey.PlanImport(keys, nil, importView{s})
	if err != nil {
		return apikey.ImportResult{}, err
	}
	result := apikey.ImportResult{Created: len(add), Unchanged: len(keys) - len(add)}
	for _, i := range add {
		k := &keys[i]
		if _, ok := s.accounts[k.Account]; !ok {
			account := apikey.AccountFor(k)
			s.accounts[k.Account] = &account
			result.Accounts++
		}
		s.addLocked(*k)
	}
	return result, nil
}

// importView is an apikey.ImportView. The store is locked.
type importView struct{ s *Keys }

func (v importView) WithDigest(d apikey.Digest) (*apikey.Key, error) {
	return v.s.keys[v.s.digests[d]], nil
}

func (v importView) HasID(id string) bool { return v.s.keys[id] != nil }

func (v importView) AsStored(k *apikey.Key) (*apikey.Key, error) { return k, nil }
