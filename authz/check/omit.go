package check

import "slices"

// Omitted is a set of what an allow does not carry: identity headers, and notes for the proxy's metadata. Envoy works on each of
// them, so an operator can leave out what nobody reads. The zero value omits nothing. A denial carries all its notes.
type Omitted uint32

// The notes by number, and the identity headers that follow them.
const (
	noteDecision = iota
	noteReason
	noteKeyID
	noteAccount
	notePlan
	noteRoute
	noteIssuer
	noteTokenID
	noteSubject
	noteReservation
	firstIdentity
)

var (
	noteNames = [firstIdentity]string{
		noteDecision: "decision_id", noteReason: "reason", noteKeyID: "key_id", noteAccount: "account", notePlan: "plan",
		noteRoute: "route", noteIssuer: "issuer", noteTokenID: "token_id", noteSubject: "subject", noteReservation: "rid",
	}
	// identityNames are the identity headers without their prefix, in the order of setIdentity.
	identityNames = [...]string{"key-id", "account", "plan", "subject", "issuer"}
)

// NoteNames and IdentityNames are the names that AllBut knows.
func NoteNames() []string     { return noteNames[:] }
func IdentityNames() []string { return identityNames[:] }

// AllBut omits everything except these notes and identity headers. It ignores names that it does not know.
func AllBut(notes, identity []string) (o Omitted) {
	for i, name := range noteNames {
		if !slices.Contains(notes, name) {
			o |= 1 << i
		}
	}
	for i, name := range identityNames {
		if !slices.Contains(identity, name) {
			o |= 1 << (firstIdentity + i)
		}
	}
	return o
}

func (o Omitted) has(part int) bool { return o>>part&1 != 0 }
