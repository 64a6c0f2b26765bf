package revocation

import (
	"context"
	"errors"
	"time"
)

// Kind says what a record matches.
type Kind string

// The kinds of record. Those that name an issuer cut off tokens of that issuer, those that name an account cut off keys
// and tokens alike.
const (
	KindKey     Kind = "key"     // an API key, by id
	KindAccount Kind = "account" // every credential of an account that was issued until Before
	KindToken   Kind = "token"   // one token, by credential.TokenDigest of its text
	KindJTI     Kind = "jti"     // one token, by the id that its issuer gave it
	KindSession Kind = "sid"     // every token of a session at the issuer
	KindSubject Kind = "sub"     // every token of a subject that was issued until Before
	// KindSessionless is every token of a subject that names no session and was issued until Before. Whoever ends one session of
	// a subject ends such tokens too, because they may belong to that session.
	KindSessionless Kind = "sub_without_sid"
	KindClient      Kind = "client"      // every token that was issued to a client until Before
	KindSigningKey  Kind = "signing_key" // every token signed with a key, by its kid
	KindSuspension  Kind = "suspension"  // every token of a subject, until the suspension is lifted
)

// Record cuts off the credentials that it matches.
type Record struct {
	// Revision is the record's place in the order of all changes. Stores number them from 1, without repeats.
	Revision uint64 `json:"revision"`
	Kind     Kind   `json:"kind"`
	// Issuer narrows Value where values are only unique for an issuer. Empty for keys, accounts and digests of tokens.
	Issuer string `json:"issuer,omitempty"`
	Value  string `json:"value"`
	// Before limits the record to credentials that were issued at that instant or earlier, or at an unknown time. Zero: all, for
	// good.
	Before time.Time `json:"before,omitzero"`
	// At is when it was revoked, and Cause why, for the operator. For a suspension, At also decides which of two records holds:
	// code that takes At from outside must not let it lie in the future.
	At    time.Time `json:"at"`
	Cause string    `json:"cause,omitempty"`
	// Lifted says that a suspension is over. The record stays, so that an older event that arrives late does not bring the
	// suspension back.
	Lifted bool `json:"lifted,omitempty"`
	// ExpiresAt is when no credential that the record matches can be valid any more, by any verifier's clock. Zero: never. A
	// suspension is forgotten then, lifted or not.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Store keeps the revocations of a whole installation.
//
// A revocation cannot be taken back: no method weakens a record, and a record is forgotten only after it has expired. The one
// exception is KindSuspension: the record that happened later replaces the earlier one, whatever either has. All methods may be
// called concurrently.
type Store interface {
	// Add makes a record durable before it returns, and returns it as stored, with its revision. If there is a record for the
	// same kind, issuer and value, Merge makes one of the two: if that changes nothing, the stored record is returned as it is,
	// else it gets a new revision. After an error it is unspecified whether the record is stored; adding it again is safe.
	Add(ctx context.Context, r Record) (Record, error)
	// Since returns the records with a revision above after, in that order, at most limit of them. A record that was
	// merged appears once, at its latest revision.
	Since(ctx context.Context, after uint64, limit int) ([]Record, error)
	// Get returns the record for that kind, issuer and value, and false if there is none.
	Get(ctx context.Context, kind Kind, issuer, value string) (Record, bool, error)
	// Prune durably forgets at most limit records whose ExpiresAt is set and lies before now, and returns how many it forgot.
	// Fewer than limit means that there were no more. Which come first is unspecified.
	//
	// Since and Get do not return a forgotten record, its revision is never used again, and adding it again makes a new record.
	// A record that a concurrent Add extends stays: Prune MUST judge a record by what is stored when it forgets it. After an
	// error it is unspecified how many are forgotten; pruning again is safe.
	Prune(ctx context.Context, now time.Time, limit int) (int, error)
}

// Reader follows the records of a store for one Set. A store that may lose what it has acknowledged, as a database does when a
// standby takes over that lacks the last commits, has a method Reader that makes one, for Since alone could not tell.
type Reader interface {
	// Since is Store.Since, with a revision that Since has returned or 0. It returns ErrWentBack once if the store may have lost
	// records that it had returned: it may use their revisions again, so the caller MUST begin at 0.
	Since(ctx context.Context, after uint64, limit int) ([]Record, error)
}

// ErrWentBack is returned by Reader.Since.
var ErrWentBack = errors.New("revocations were lost that had been stored: they have to be read again from the first")

// LocalCopy is a Reader that keeps what it has read on this machine too.
type LocalCopy interface {
	// ReadCopy calls each for the records of the copy that another process has left, and returns when they were all there were.
	// If it returns an error, what each got is worth nothing.
	ReadCopy(each func(Record)) (complete time.Time, err error)
}
