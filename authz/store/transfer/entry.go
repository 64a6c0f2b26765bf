package transfer

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// Section is one kind of entry.
type Section string

// The sections.
const (
	Accounts    Section = "accounts"
	Keys        Section = "keys"
	Revocations Section = "revocations"
	Marks       Section = "marks" // one at the most
	Holders     Section = "holders"
	Journal     Section = "journal"
	Settled     Section = "settled"
)

// Sections are all, in the order in which they are copied.
func Sections() []Section {
	return []Section{Accounts, Keys, Revocations, Marks, Holders, Journal, Settled}
}

// Entry is one thing that a store keeps. Section and Key name it.
type Entry struct {
	Section    Section
	Key, Value []byte
}

// OfAccount is the entry of an account: its id, and its record in the form of keyrecord.
func OfAccount(a *apikey.Account) Entry {
	return Entry{Accounts, []byte(a.ID), keyrecord.AppendAccount(nil, a)}
}

// Account reads OfAccount.
func (e *Entry) Account() (*apikey.Account, error) {
	return keyrecord.OpenAccount(string(e.Key), e.Value)
}

// OfKey is the entry of a key: its digest, and its record in the form of keyrecord.
func OfKey(k *apikey.Key) Entry { return Entry{Keys, k.Digest[:], keyrecord.AppendKey(nil, k)} }

// APIKey reads OfKey.
func (e *Entry) APIKey() (*apikey.Key, error) {
	if len(e.Key) != len(apikey.Digest{}) {
		return nil, authz.Errorf(authz.KindUnavailable, "a key has a digest of %d bytes", len(e.Key))
	}
	return keyrecord.OpenKey(apikey.Digest(e.Key), e.Value)
}

// OfRevocation is the entry of a revocation, with its revision.
func OfRevocation(r *revocation.Record) (Entry, error) {
	return asJSON(Revocations, join(string(r.Kind), r.Issuer, r.Value), r)
}

// Revocation reads OfRevocation.
func (e *Entry) Revocation() (revocation.Record, error) { return fromJSON[revocation.Record](e) }

// OfMark is the entry of the mark of revocations.
func OfMark(m *revocation.Mark) (Entry, error) { return asJSON(Marks, nil, m) }

// Mark reads OfMark.
func (e *Entry) Mark() (revocation.Mark, error) { return fromJSON[revocation.Mark](e) }

// OfHolder is the entry of what a ledger knows about a holder, in the form of quota.
func OfHolder(h quota.HolderID, r *quota.Record) (Entry, error) {
	text, err := r.AppendBinary(nil)
	return Entry{Holders, join(string(h.Per), h.Holder), text}, err
}

// Holder is the holder of OfHolder.
func (e *Entry) Holder() (quota.HolderID, error) {
	parts, ok := Split(e.Key, 2)
	if !ok {
		return quota.HolderID{}, authz.Errorf(authz.KindUnavailable, "%q is not the name of a holder", e.Key)
	}
	return quota.HolderID{Per: authz.Per(parts[0]), Holder: parts[1]}, nil
}

// Used says for which credit, reset or release an id was used.
type Used struct {
	Verb   string       `json:"verb"`
	Bucket quota.Bucket `json:"bucket"`
	Units  int64        `json:"units,omitempty"`
	Note   string       `json:"note,omitempty"`
	At     time.Time    `json:"at"`
}

// OfUsed is the entry of the journal for an id.
func OfUsed(id string, u Used) (Entry, error) {
	u.At = instant(u.At)
	return asJSON(Journal, []byte(id), &u)
}

// Used reads OfUsed.
func (e *Entry) Used() (Used, error) { return fromJSON[Used](e) }

// Settlement says how a reservation was settled.
type Settlement struct {
	At     time.Time        `json:"at"`
	Answer quota.Settlement `json:"answer"`
}

// OfSettlement is the entry of a settlement, by the id of its reservation.
func OfSettlement(id string, s Settlement) (Entry, error) {
	s.At = instant(s.At)
	return asJSON(Settled, []byte(id), &s)
}

// Settlement reads OfSettlement.
func (e *Entry) Settlement() (Settlement, error) { return fromJSON[Settlement](e) }

// instant is a time as every store can hold it.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// join makes one key of several parts. No two lists of parts make the same key.
func join(parts ...string) []byte {
	var out []byte
	for i, part := range parts {
		if i < len(parts)-1 {
			out = binary.AppendUvarint(out, uint64(len(part)))
		}
		out = append(out, part...)
	}
	return out
}

// Split returns the parts of the key of an entry: a revocation's has three (kind, issuer and value), a holder's two, and all others one.
func Split(key []byte, parts int) ([]string, bool) {
	var out []string
	for len(out) < parts-1 {
		n, size := binary.Uvarint(key)
		if size <= 0 || n > uint64(len(key)-size) {
			return nil, false
		}
		out = append(out, string(key[size:size+int(n)]))
		key = key[size+int(n):]
	}
	return append(out, string(key)), true
}

func asJSON[T any](s Section, key []byte, v *T) (Entry, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return Entry{}, authz.Errorf(authz.KindUnavailable, "an entry of %s: %w", s, err)
	}
	return Entry{s, key, text}, nil
}

func fromJSON[T any](e *Entry) (v T, err error) {
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, authz.Errorf(authz.KindUnavailable, "an entry of %s: %w", e.Section, err)
	}
	return v, nil
}
