package apikey

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Key is one API key. The plaintext is not part of it: it is shown once, when the key is made.
//
// A *Key that a Store hands out is shared by many goroutines and MUST NOT be changed.
type Key struct {
	ID          string         `json:"id"`
	Name        string         `json:"name,omitempty"`
	Account     string         `json:"account"`
	Plan        string         `json:"plan,omitempty"` // empty: the account's plan
	Environment string         `json:"environment,omitempty"`
	Scopes      []string       `json:"scopes,omitempty"`
	NotBefore   time.Time      `json:"not_before,omitzero"`
	ExpiresAt   time.Time      `json:"expires_at,omitzero"`
	Disabled    bool           `json:"disabled,omitempty"`
	Meta        map[string]any `json:"meta,omitempty"`

	// Lineage is the id of the first key in the chain of rotations. The chain shares one balance.
	Lineage string `json:"lineage"`
	// Successor is the key that replaced this one, and OverlapEnds the instant from which only the successor is good.
	Successor   string    `json:"successor,omitempty"`
	OverlapEnds time.Time `json:"overlap_ends,omitzero"`

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Version counts the writes to the key, from 1.
	Version uint64 `json:"version"`
	// Digest is what the key is found by. See Hasher.
	Digest Digest `json:"digest"`
}

// Account pays for a set of keys.
//
// An *Account that a Store hands out is shared by many goroutines and MUST NOT be changed.
type Account struct {
	ID        string              `json:"id"`
	Name      string              `json:"name,omitempty"`
	Plan      string              `json:"plan,omitempty"`
	Status    authz.AccountStatus `json:"status"` // active, suspended or overdue
	Meta      map[string]any      `json:"meta,omitempty"`
	CreatedAt time.Time           `json:"created_at"`
	UpdatedAt time.Time           `json:"updated_at"`
	Version   uint64              `json:"version"`
}

// KeyChange is a change of a key. Nil fields stay as they are.
type KeyChange struct {
	At        time.Time // becomes UpdatedAt
	IfVersion uint64    // unless 0: refuse with KindConflict if the key has another version
	Name      *string
	Plan      *string
	Scopes    *[]string
	Disabled  *bool
	ExpiresAt *time.Time
	Meta      map[string]any // a merge patch (RFC 7396): nil values remove names
}

// AccountChange is a change of an account. Nil fields stay as they are.
type AccountChange struct {
	At        time.Time
	IfVersion uint64
	Name      *string
	Plan      *string
	Status    *authz.AccountStatus
	Meta      map[string]any // a merge patch, as in KeyChange
}

// Page asks for a part of a listing, in the order of ids.
type Page struct {
	Account string // only keys of that account; ignored by listings of accounts
	After   string // only ids after this one; "" from the start
	Limit   int    // at most that many; 0 is 100
}

// PlanUse says that an account, or a key that has a plan of its own, is on a plan.
type PlanUse struct {
	Plan    string
	Account string
	Key     string // the id of the key; "" if it is the account's plan
	// CreatedAt is when the key was made, and Ends the instant from which it has expired or is replaced, zero if never.
	CreatedAt, Ends time.Time
}

// ImportResult counts what an import did.
type ImportResult struct {
	Created   int // keys that were not there
	Unchanged int // keys that were there, the same in every imported field
	Accounts  int // accounts that were not there
}

// ImportFault is what is wrong with one key of an import.
type ImportFault struct {
	Index int // in the slice passed to Import
	Text  string
}

// ImportError refuses a whole import. It is of KindConflict.
type ImportError struct{ Faults []ImportFault }

// Store keeps keys and accounts.
//
// Find and Account are on the path of every request: an implementation MUST answer them without I/O in the steady state and
// without a lock that a write holds while it does I/O. All reads return an error of KindNotFound if there is no such
// record, and of KindUnavailable if they cannot tell; a caller MUST NOT take the second for the first.
//
// Writes are atomic and durable: when one returns nil, a crash at any later moment does not lose it and every read that
// starts afterwards, on this node, sees it. When one returns an error of a kind other than KindUnavailable, nothing
// was changed. After KindUnavailable it is unspecified whether the write took place.
//
// All methods may be called concurrently. What is passed in MUST NOT be changed afterwards.
type Store interface {
	// Find returns the key with that digest.
	Find(ctx context.Context, d Digest) (*Key, error)
	// Key returns the key with that id.
	Key(ctx context.Context, id string) (*Key, error)
	// Account returns the account with that id.
	Account(ctx context.Context, id string) (*Account, error)

	// Keys and Accounts list by id, ascending.
	Keys(ctx context.Context, p Page) ([]*Key, error)
	Accounts(ctx context.Context, p Page) ([]*Account, error)

	// OnPlans calls each for every account that has a plan, and for every key that has a plan of its own. The first error of
	// each ends it and is returned. It visits every record, so it takes its time, and MUST NOT hold up reads or writes
	// meanwhile. A record that is written meanwhile may come in either state.
	OnPlans(ctx context.Context, each func(PlanUse) error) error

	// A created record gets version 1, whatever it has. An empty id is refused with KindInvalid. A key without a lineage begins
	// one: its lineage is its id. Meta holds JSON values.

	// CreateAccount adds an account. KindExists if the id is taken.
	CreateAccount(ctx context.Context, a Account) (*Account, error)
	// AmendAccount changes an account and raises its version.
	AmendAccount(ctx context.Context, id string, c AccountChange) (*Account, error)

	// CreateKey adds a key. KindExists if the id or the digest is taken, KindNotFound if there is no such account.
	CreateKey(ctx context.Context, k Key) (*Key, error)
	// AmendKey changes a key and raises its version.
	AmendKey(ctx context.Context, id string, c KeyChange) (*Key, error)
	// RotateKey adds a successor and marks the key with that id as replaced by it from overlapEnds on, both or
	// neither. The successor gets the key's lineage, whatever it has, and its CreatedAt is the instant of the rotation.
	// KindConflict if the key has a successor already.
	RotateKey(ctx context.Context, id string, successor Key, overlapEnds time.Time) (old, made *Key, err error)

	// Import adds keys, all or none. A key whose digest is stored already is unchanged if SameImport says so, else it is a
	// fault, and so is a digest that comes twice with different content. A key that comes twice with the same content counts
	// once as created and then as unchanged. An account that does not exist is made: active, with the plan of its first key. A
	// refusal is an *ImportError that names every faulty key. See PlanImport.
	Import(ctx context.Context, keys []Key) (ImportResult, error)
}
