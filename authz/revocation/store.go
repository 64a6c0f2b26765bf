package revocation

import (
	"context"
	"time"
)

// Kind is what a record matches.
type Kind string

// The kinds of record. Those for tokens are matched once tokens are verified.
const (
	KindKey     Kind = "key"     // an API key, by id
	KindAccount Kind = "account" // every credential of an account that was issued until Before
)

// Record cuts somebody off.
type Record struct {
	// Revision is the record's place in the order of all changes. Stores number them from 1, without repeats.
	Revision uint64 `json:"revision"`
	Kind     Kind   `json:"kind"`
	// Issuer narrows Value where values are only unique for an issuer. Empty for keys and accounts.
	Issuer string `json:"issuer,omitempty"`
	Value  string `json:"value"`
	// Before limits the record to credentials that were issued at that instant or earlier. Zero: all, for good.
	Before time.Time `json:"before,omitzero"`
	// At is when it was revoked, and Cause why, for the operator.
	At    time.Time `json:"at"`
	Cause string    `json:"cause,omitempty"`
	// ExpiresAt is when nothing that the record matches can be valid any more. Zero: never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Store keeps the revocations of a whole installation.
//
// Revocation cannot be taken back: there is no method that weakens a record. All methods may be called concurrently.
type Store interface {
	// Add makes a record durable before it returns, and returns it as stored, with its revision. Where there is a
	// record for the same kind, issuer and value, the two are merged by Merge: if that changes nothing, the stored
	// one is returned as it is; else it gets a new revision. After an error it is unspecified whether the record is
	// there; adding it again is safe.
	Add(ctx context.Context, r Record) (Record, error)
	// Since returns the records with a revision above after, in that order, at most limit of them. A record that was
	// merged appears once, at its latest revision.
	Since(ctx context.Context, after uint64, limit int) ([]Record, error)
	// Get returns the record for that kind, issuer and value, and false if there is none.
	Get(ctx context.Context, kind Kind, issuer, value string) (Record, bool, error)
}
