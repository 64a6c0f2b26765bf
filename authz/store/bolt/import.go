package bolt

import (
	"context"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// incoming is one key of an import.
type incoming struct {
	key   *apikey.Key
	text  []byte
	fault string // why it cannot even be written
}

// importing is the state of one Import inside its transaction.
type importing struct {
	keys     *Keys
	w        *write
	byDigest map[apikey.Digest]incoming // that this import adds
	byID     map[string]bool
	added    []incoming
	result   apikey.ImportResult
}

// Import is apikey.Store.Import. The whole import is one transaction, during which other writes wait: some thousand
// keys at a time are a good measure.
func (s *Keys) Import(ctx context.Context, keys []apikey.Key) (apikey.ImportResult, error) {
	all := make([]incoming, len(keys))
	for i := range keys {
		all[i] = prepareImport(keys[i])
	}
	return mutate(ctx, s.db.commits, func(w *write) (apikey.ImportResult, error) {
		im := &importing{keys: s, w: w, byDigest: make(map[apikey.Digest]incoming), byID: make(map[string]bool)}
		if err := im.check(all); err != nil {
			return apikey.ImportResult{}, err
		}
		for _, in := range im.added {
			if err := im.add(in); err != nil {
				return apikey.ImportResult{}, err
			}
		}
		return im.result, nil
	})
}

// prepareImport does what needs no transaction.
func prepareImport(k apikey.Key) incoming {
	k.Version = 1
	if k.Lineage == "" {
		k.Lineage = k.ID
	}
	text, err := encode(&k)
	if err != nil {
		return incoming{key: &k, fault: fmt.Sprintf("key %q %v", k.ID, err)}
	}
	return incoming{key: &k, text: text}
}

// check sorts out what has to be added, or returns every fault.
func (im *importing) check(all []incoming) error {
	var faults []apikey.ImportFault
	for i, in := range all {
		same, fault, err := im.compare(in)
		switch {
		case err != nil:
			return err
		case fault != "":
			faults = append(faults, apikey.ImportFault{Index: i, Text: fault})
		case same:
			im.result.Unchanged++
		default:
			im.byDigest[in.key.Digest], im.byID[in.key.ID] = in, true
			im.added = append(im.added, in)
		}
	}
	if len(faults) > 0 {
		return &apikey.ImportError{Faults: faults}
	}
	return nil
}

// compare looks for a key in the file and among those that came before it in the import.
func (im *importing) compare(in incoming) (same bool, fault string, err error) {
	k := in.key
	if in.fault != "" {
		return false, in.fault, nil
	}
	if id := im.w.get(bucketDigests, k.Digest[:]); id != nil {
		if same, err = in.sameAs(im.w.get(bucketKeys, id)); err != nil || same {
			return same, "", err
		}
		return false, fmt.Sprintf("key %q is there already as %q and says something else", k.ID, id), nil
	}
	if earlier, ok := im.byDigest[k.Digest]; ok {
		if same, err = in.sameAs(earlier.text); err != nil || same {
			return same, "", err
		}
		return false, fmt.Sprintf("key %q comes twice, first as %q, and says something else", k.ID, earlier.key.ID), nil
	}
	switch {
	case k.ID == "":
		return false, "a key needs an id", nil
	case k.Account == "":
		return false, fmt.Sprintf("key %q has no account", k.ID), nil
	case im.byID[k.ID] || im.w.get(bucketKeys, []byte(k.ID)) != nil:
		return false, fmt.Sprintf("there is another key %q", k.ID), nil
	}
	return false, "", nil
}

// sameAs compares with a key that was written. Both are taken as they are read back, so that a number in Meta does not
// differ from itself.
func (in incoming) sameAs(text []byte) (bool, error) {
	there, err := decode[apikey.Key](text)
	if err != nil {
		return false, err
	}
	if there == nil {
		return false, authz.Errorf(authz.KindUnavailable, "the data file is damaged: the digest of key %q leads to one that is not there", in.key.ID)
	}
	here, err := decode[apikey.Key](in.text)
	return err == nil && apikey.SameImport(there, here), err
}

func (im *importing) add(in incoming) error {
	k := in.key
	if im.w.get(bucketAccounts, []byte(k.Account)) == nil {
		account := apikey.AccountFor(k)
		if _, err := im.keys.putAccount(im.w, &account); err != nil {
			return err
		}
		im.result.Accounts++
	}
	if err := indexKey(im.w, k); err != nil {
		return err
	}
	if err := im.w.put(bucketKeys, []byte(k.ID), in.text); err != nil {
		return err
	}
	im.w.afterCommit(func() { im.keys.db.cache.Load().putDigest(k.Digest) })
	im.result.Created++
	return nil
}
