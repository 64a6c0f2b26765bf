package keyrecord

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// version is the first byte of a record.
const version = 1

// The flags of a key say which of its fields follow, or are themselves a field.
const (
	keyHasPlan = 1 << iota
	keyHasExpiry
	keyHasSuccessor
	keyHasOverlap
	keyIsDisabled
	keyHasNotBefore
	keyHasName
	keyHasEnvironment
	keyHasScopes
	keyHasMeta
	keyHasLineage // else its lineage is its id
	keyHasUpdate  // else it was last written when it was made
	keyFlags
)

// The flags of an account.
const (
	accountHasPlan = 1 << iota
	accountHasName
	accountHasMeta
	accountFlags
)

// AppendKey appends the record of a key. The key must be as it is after a round trip through JSON: Meta has only the types that
// encoding/json decodes into any. Empty scopes and an empty Meta are read back as nil, as from JSON.
func AppendKey(dst []byte, k *apikey.Key) []byte {
	flags := flagIf(keyHasPlan, k.Plan != "") | flagIf(keyHasExpiry, !k.ExpiresAt.IsZero()) | flagIf(keyHasSuccessor, k.Successor != "") |
		flagIf(keyHasOverlap, !k.OverlapEnds.IsZero()) | flagIf(keyIsDisabled, k.Disabled) | flagIf(keyHasNotBefore, !k.NotBefore.IsZero()) |
		flagIf(keyHasName, k.Name != "") | flagIf(keyHasEnvironment, k.Environment != "") | flagIf(keyHasScopes, len(k.Scopes) > 0) |
		flagIf(keyHasMeta, len(k.Meta) > 0) | flagIf(keyHasLineage, k.Lineage != k.ID) | flagIf(keyHasUpdate, !sameTime(k.UpdatedAt, k.CreatedAt))
	w := writer{dst: dst, begin: len(dst), flags: flags}
	w.head()
	w.text(k.ID)
	w.text(k.Account)
	w.optionalText(keyHasPlan, k.Plan)
	w.time(k.CreatedAt)
	w.optionalTime(keyHasExpiry, k.ExpiresAt)
	w.optionalText(keyHasSuccessor, k.Successor)
	w.optionalTime(keyHasOverlap, k.OverlapEnds)
	w.optionalTime(keyHasNotBefore, k.NotBefore)
	w.optionalText(keyHasName, k.Name)
	w.optionalText(keyHasEnvironment, k.Environment)
	w.optionalText(keyHasLineage, k.Lineage)
	w.optionalTime(keyHasUpdate, k.UpdatedAt)
	w.number(k.Version)
	if flags&keyHasScopes != 0 {
		w.number(uint64(len(k.Scopes)))
		for _, s := range k.Scopes {
			w.text(s)
		}
	}
	if flags&keyHasMeta != 0 {
		w.object(k.Meta)
	}
	return w.seal(k.Digest[:])
}

// Key reads the record of the key with that digest, which Open has returned. Its texts are parts of the record. The error is of
// KindUnavailable: it is not known what the record said.
func Key(k *apikey.Key, d apikey.Digest, record string) error {
	r := reader{rest: record}
	readPlan(&r, k)
	*k = apikey.Key{
		Digest: d, ID: k.ID, Account: k.Account, Plan: k.Plan, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, Successor: k.Successor,
		OverlapEnds: k.OverlapEnds, Disabled: k.Disabled, NotBefore: k.NotBefore,
	}
	k.Name = r.optionalText(keyHasName)
	k.Environment = r.optionalText(keyHasEnvironment)
	if k.Lineage = k.ID; r.flags&keyHasLineage != 0 {
		k.Lineage = r.text()
	}
	if k.UpdatedAt = k.CreatedAt; r.flags&keyHasUpdate != 0 {
		k.UpdatedAt = r.time()
	}
	k.Version = r.number()
	if r.flags&keyHasScopes != 0 {
		k.Scopes = make([]string, r.count())
		for i := range k.Scopes {
			k.Scopes[i] = r.text()
		}
	}
	if r.flags&keyHasMeta != 0 {
		k.Meta = r.object(0)
	}
	return r.end()
}

// PlanUse reads who is on the plan of a key, and returns false if the key has no plan of its own. It costs a fraction of Key.
func PlanUse(record []byte) (apikey.PlanUse, bool, error) {
	if len(record) > 1 && record[1]&keyHasPlan == 0 && record[0] == version {
		return apikey.PlanUse{}, false, nil
	}
	r, k := reader{rest: string(record)}, apikey.Key{}
	readPlan(&r, &k)
	return k.PlanUse(), k.Plan != "", r.fault()
}

// readPlan reads the first fields of a key.
func readPlan(r *reader, k *apikey.Key) {
	r.head(keyFlags)
	k.ID = r.text()
	k.Account = r.text()
	k.Plan = r.optionalText(keyHasPlan)
	k.CreatedAt = r.time()
	k.ExpiresAt = r.optionalTime(keyHasExpiry)
	k.Successor = r.optionalText(keyHasSuccessor)
	k.OverlapEnds = r.optionalTime(keyHasOverlap)
	k.NotBefore = r.optionalTime(keyHasNotBefore)
	k.Disabled = r.flags&keyIsDisabled != 0
}

// AppendAccount appends the record of an account, as AppendKey does.
func AppendAccount(dst []byte, a *apikey.Account) []byte {
	flags := flagIf(accountHasPlan, a.Plan != "") | flagIf(accountHasName, a.Name != "") | flagIf(accountHasMeta, len(a.Meta) > 0)
	w := writer{dst: dst, begin: len(dst), flags: flags}
	w.head()
	w.optionalText(accountHasPlan, a.Plan)
	w.text(string(a.Status))
	w.optionalText(accountHasName, a.Name)
	w.time(a.CreatedAt)
	w.time(a.UpdatedAt)
	w.number(a.Version)
	if flags&accountHasMeta != 0 {
		w.object(a.Meta)
	}
	return w.seal([]byte(a.ID))
}

// Account reads the record of the account with that id, as Key does.
func Account(a *apikey.Account, id, record string) error {
	r := reader{rest: record}
	r.head(accountFlags)
	*a = apikey.Account{ID: id, Plan: r.optionalText(accountHasPlan), Status: status(r.text())}
	a.Name = r.optionalText(accountHasName)
	a.CreatedAt = r.time()
	a.UpdatedAt = r.time()
	a.Version = r.number()
	if r.flags&accountHasMeta != 0 {
		a.Meta = r.object(0)
	}
	return r.end()
}

// status returns one of the constants where it can, which the record then need not be kept for.
func status(text string) authz.AccountStatus {
	for _, s := range [...]authz.AccountStatus{authz.AccountActive, authz.AccountSuspended, authz.AccountOverdue} {
		if text == string(s) {
			return s
		}
	}
	return authz.AccountStatus(text)
}

func flagIf(flag uint64, on bool) uint64 {
	if on {
		return flag
	}
	return 0
}

// sameTime reports whether two times are read back as the same.
func sameTime(a, b time.Time) bool {
	_, zoneA := a.Zone()
	_, zoneB := b.Zone()
	return a.Equal(b) && zoneA == zoneB
}
