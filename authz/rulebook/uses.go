package rulebook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// Uses tells who is on which plan, by the name of the plan.
type Uses map[string]*admin.PlanUse

// Of returns the entry of a plan, which it adds if it is not there.
func (u Uses) Of(plan string) *admin.PlanUse {
	if u[plan] == nil {
		u[plan] = &admin.PlanUse{Name: plan}
	}
	return u[plan]
}

// List returns the entries in the order of their names. It is never nil.
func (u Uses) List() []admin.PlanUse {
	out := make([]admin.PlanUse, 0, len(u))
	for _, name := range slices.Sorted(maps.Keys(u)) {
		out = append(out, *u[name])
	}
	return out
}

// missing describes each used plan that does not exist. Policies without any plans are let be: to them, the name of a plan
// is only an attribute.
func (u Uses) missing(plans map[string][]authz.Limit) []string {
	if len(plans) == 0 {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(u)) {
		if _, exists := plans[name]; !exists {
			out = append(out, fmt.Sprintf("plan %q does not exist, and is used by %s", name, strings.Join(usersOf(u[name]), ", ")))
		}
	}
	return out
}

// usersOf names the users of a plan, such as "2 accounts (a, b)". It returns none for nil.
func usersOf(u *admin.PlanUse) []string {
	if u == nil {
		return nil
	}
	var out []string
	add := func(n int, noun string, ids []string) {
		if n == 0 {
			return
		}
		if n > 1 {
			noun += "s"
		}
		list := strings.Join(ids, ", ")
		if n > len(ids) {
			list += ", …"
		}
		out = append(out, fmt.Sprintf("%d %s (%s)", n, noun, list))
	}
	add(u.Accounts, "account", u.AccountIDs)
	add(u.Keys, "key", u.KeyIDs)
	if u.Tokens {
		out = append(out, "tokens that name it")
	}
	return out
}
