package memory

import (
	"context"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// Import is apikey.Store.Import.
func (s *Keys) Import(_ context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var (
		result   apikey.ImportResult
		faults   []apikey.ImportFault
		byDigest = make(map[apikey.Digest]*apikey.Key) // that this import adds
		byID     = make(map[string]bool)
		added    []*apikey.Key
	)
	for i := range keys {
		k := &keys[i]
		same, fault := s.checkImportLocked(k, byDigest[k.Digest], byID[k.ID])
		switch {
		case fault != "":
			faults = append(faults, apikey.ImportFault{Index: i, Text: fault})
		case same:
			result.Unchanged++
		default:
			byDigest[k.Digest], byID[k.ID] = k, true
			added = append(added, k)
		}
	}
	if len(faults) > 0 {
		return apikey.ImportResult{}, &apikey.ImportError{Faults: faults}
	}
	for _, k := range added {
		if _, ok := s.accounts[k.Account]; !ok {
			account := apikey.AccountFor(k)
			s.accounts[k.Account] = &account
			result.Accounts++
		}
		s.addLocked(*k)
	}
	result.Created = len(added)
	return result, nil
}

// checkImportLocked compares a key with what is there and with the one of the same digest earlier in the import.
func (s *Keys) checkImportLocked(k, earlier *apikey.Key, idTaken bool) (same bool, fault string) {
	if id, ok := s.digests[k.Digest]; ok {
		if apikey.SameImport(s.keys[id], k) {
			return true, ""
		}
		return false, fmt.Sprintf("key %q is there already as %q and says something else", k.ID, id)
	}
	if earlier != nil {
		if apikey.SameImport(earlier, k) {
			return true, ""
		}
		return false, fmt.Sprintf("key %q comes twice, first as %q, and says something else", k.ID, earlier.ID)
	}
	switch _, ok := s.keys[k.ID]; {
	case k.ID == "":
		return false, "a key needs an id"
	case k.Account == "":
		return false, fmt.Sprintf("key %q has no account", k.ID)
	case ok || idTaken:
		return false, fmt.Sprintf("there is another key %q", k.ID)
	}
	return false, ""
}
