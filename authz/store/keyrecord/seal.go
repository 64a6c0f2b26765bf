package keyrecord

import (
	"encoding/json"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// SealKey returns the record of any key. The error is of KindInvalid if the key cannot be stored.
func SealKey(k *apikey.Key) ([]byte, error) {
	stored, err := AsStored(k)
	if err != nil {
		return nil, err
	}
	return AppendKey(nil, stored), nil
}

// SealImport returns the keys of an import as they are stored, with their records, and says by their places which cannot be.
func SealImport(keys []apikey.Key) (imported []apikey.Key, records [][]byte, faults map[int]string) {
	imported, records, faults = make([]apikey.Key, len(keys)), make([][]byte, len(keys)), make(map[int]string)
	for i, k := range keys {
		k.Version = 1
		if k.Lineage == "" {
			k.Lineage = k.ID
		}
		imported[i] = k
		var err error
		if records[i], err = SealKey(&k); err != nil {
			faults[i] = fmt.Sprintf("key %q %v", k.ID, err)
		}
	}
	return imported, records, faults
}

// SealAccount returns the record of any account, as SealKey does.
func SealAccount(a *apikey.Account) ([]byte, error) {
	stored, err := asJSON(a)
	if err != nil {
		return nil, err
	}
	if stored.ID != a.ID {
		return nil, authz.Errorf(authz.KindInvalid, "account id %q is not UTF-8", a.ID)
	}
	return AppendAccount(nil, stored), nil
}

// OpenKey reads what SealKey returned. The error is of KindUnavailable.
func OpenKey(d apikey.Digest, sealed []byte) (*apikey.Key, error) {
	record, err := Open(d[:], sealed)
	if err != nil {
		return nil, err
	}
	k := new(apikey.Key)
	if err := Key(k, d, string(record)); err != nil {
		return nil, err
	}
	return k, nil
}

// OpenAccount reads what SealAccount returned. The error is of KindUnavailable.
func OpenAccount(id string, sealed []byte) (*apikey.Account, error) {
	record, err := Open([]byte(id), sealed)
	if err != nil {
		return nil, err
	}
	a := new(apikey.Account)
	if err := Account(a, id, string(record)); err != nil {
		return nil, err
	}
	return a, nil
}

// AsStored returns a key as a record can hold it.
func AsStored(k *apikey.Key) (*apikey.Key, error) {
	stored, err := asJSON(k)
	if err != nil {
		return nil, err
	}
	if stored.ID != k.ID || stored.Account != k.Account || stored.Lineage != k.Lineage || stored.Successor != k.Successor {
		return nil, authz.Errorf(authz.KindInvalid, "an id of key %q is not UTF-8", k.ID)
	}
	return stored, nil
}

// asJSON returns a value as JSON shows it, which is what a record can hold, so that memory holds the same before and after a restart:
// a number in Meta, say, is a float64 from the beginning.
func asJSON[T any](v *T) (*T, error) {
	text, err := json.Marshal(v)
	stored := new(T)
	if err == nil {
		err = json.Unmarshal(text, stored)
	}
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "cannot be written as JSON: %w", err)
	}
	return stored, nil
}
