package apikey

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// StatusAt is the status of the key itself at that instant. Revocation is known elsewhere and comes first. If several apply, it
// is the one that is hardest to undo.
func (k *Key) StatusAt(now time.Time) authz.KeyStatus {
	switch {
	case k.Successor != "" && !now.Before(k.OverlapEnds):
		return authz.KeyRotated
	case k.Disabled:
		return authz.KeyDisabled
	case !k.NotBefore.IsZero() && now.Before(k.NotBefore):
		return authz.KeyNotYetValid
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return authz.KeyExpired
	default:
		return authz.KeyActive
	}
}

// PlanUse returns who is on the key's own plan.
func (k *Key) PlanUse() PlanUse {
	u := PlanUse{Plan: k.Plan, Account: k.Account, Key: k.ID, CreatedAt: k.CreatedAt, Ends: k.ExpiresAt}
	if k.Successor == "" {
		return u
	}
	overlap := k.OverlapEnds
	if overlap.IsZero() { // there was none: the zero Ends would say that the key never ends
		overlap = time.Unix(0, 0).UTC()
	}
	if u.Ends.IsZero() || overlap.Before(u.Ends) {
		u.Ends = overlap
	}
	return u
}

// SuccessorOf makes the key that replaces k. It may do the same until the same instant, so that a rotation never grants more.
func SuccessorOf(k *Key, id string, d Digest, now time.Time) Key {
	next := *k
	next.ID, next.Digest = id, d
	next.Successor, next.OverlapEnds = "", time.Time{}
	next.CreatedAt, next.UpdatedAt, next.Version = now, now, 1
	return next
}

// Apply returns the key with the change made and its version raised.
func (k *Key) Apply(c KeyChange) (*Key, error) {
	if c.IfVersion != 0 && c.IfVersion != k.Version {
		return nil, authz.Errorf(authz.KindConflict, "key %q is at version %d, not %d", k.ID, k.Version, c.IfVersion)
	}
	next := *k
	set(&next.Name, c.Name)
	set(&next.Plan, c.Plan)
	set(&next.Scopes, c.Scopes)
	set(&next.Disabled, c.Disabled)
	set(&next.ExpiresAt, c.ExpiresAt)
	if c.Meta != nil {
		next.Meta = merge(next.Meta, c.Meta)
	}
	next.UpdatedAt = c.At
	next.Version++
	return &next, nil
}

// Rotate returns the key as it is once successor has replaced it.
func (k *Key) Rotate(successor string, at, overlapEnds time.Time) (*Key, error) {
	if k.Successor != "" {
		return nil, authz.Errorf(authz.KindConflict, "key %q was rotated already: rotate its successor %q", k.ID, k.Successor)
	}
	next := *k
	next.Successor, next.OverlapEnds = successor, overlapEnds
	next.UpdatedAt = at
	next.Version++
	return &next, nil
}

// Apply returns the account with the change made and its version raised.
func (a *Account) Apply(c AccountChange) (*Account, error) {
	if c.IfVersion != 0 && c.IfVersion != a.Version {
		return nil, authz.Errorf(authz.KindConflict, "account %q is at version %d, not %d", a.ID, a.Version, c.IfVersion)
	}
	next := *a
	set(&next.Name, c.Name)
	set(&next.Plan, c.Plan)
	set(&next.Status, c.Status)
	if c.Meta != nil {
		next.Meta = merge(next.Meta, c.Meta)
	}
	next.UpdatedAt = c.At
	next.Version++
	return &next, nil
}

// SameImport reports whether two keys are the same in every field that an import sets.
func SameImport(a, b *Key) bool {
	return a.Digest == b.Digest && a.Name == b.Name && a.Account == b.Account && a.Plan == b.Plan &&
		a.Environment == b.Environment && slices.Equal(a.Scopes, b.Scopes) && a.NotBefore.Equal(b.NotBefore) &&
		a.ExpiresAt.Equal(b.ExpiresAt) && (len(a.Meta)+len(b.Meta) == 0 || reflect.DeepEqual(a.Meta, b.Meta))
}

// AccountFor is the account that an import makes if the account of a key does not exist.
func AccountFor(k *Key) Account {
	return Account{ID: k.Account, Plan: k.Plan, Status: authz.AccountActive, CreatedAt: k.CreatedAt, UpdatedAt: k.CreatedAt, Version: 1}
}

// CheckAccountID returns an error if the id cannot name an account. Ids stand in headers and logs.
func CheckAccountID(id string) error { return checkName("account", id, 128) }

// CheckScopes returns an error if one of them is not a scope (RFC 6749 section 3.3).
func CheckScopes(scopes []string) error {
	for _, s := range scopes {
		if err := checkName("scope", s, 128); err != nil {
			return err
		}
	}
	return nil
}

func checkName(what, s string, limit int) error {
	bad := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",\`, r) })
	if s == "" || len(s) > limit || bad >= 0 {
		return authz.Errorf(authz.KindInvalid, "%s %q: use 1 to %d visible characters without spaces, commas, quotes and backslashes", what, s, limit)
	}
	return nil
}

// Meta copies a map of texts for Key.Meta.
func Meta(in map[string]string) map[string]any {
	out := make(map[string]any, len(in))
	for _, k := range slices.Sorted(maps.Keys(in)) {
		out[k] = in[k]
	}
	return out
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (e *ImportError) Error() string {
	if len(e.Faults) == 0 {
		return "the import was refused"
	}
	return fmt.Sprintf("%d keys cannot be imported: the first is %s", len(e.Faults), e.Faults[0].Text)
}

// Unwrap gives the error its kind.
func (e *ImportError) Unwrap() error { return authz.Errorf(authz.KindConflict, "import refused") }
